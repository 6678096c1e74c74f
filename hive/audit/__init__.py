"""Reads a hive's files without its daemon: verify, replay, why, check. Used by the command line."""
