"""Backups of a state folder: incremental, verified, taken beside a running daemon, and restored elsewhere."""
