"""hive runs a swarm of Claude Code agents on one host, and keeps a log that proves what happened."""

__version__ = "0.2.0.dev0"
