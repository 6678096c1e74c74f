"""The process inside an agent's container: it takes messages from the daemon and runs Claude Code turns with them."""
