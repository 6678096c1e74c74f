"""The `hive` command line: a file a noun. Each command parses, asks and prints."""
