"""The `hive` command line, one module per noun. Each command parses arguments, asks the daemon and prints."""
