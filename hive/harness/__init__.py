"""The process inside an agent's container: takes messages from the daemon and runs Claude Code turns."""
