"""System tests: a real daemon process, real sockets, real runtimes, real turns of the CLI."""
