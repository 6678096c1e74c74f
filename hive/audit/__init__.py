"""Reading a hive's files without its daemon: verify, replay, explain, check. The command line is the user."""
