"""The daemon's journal clients to the world: the host socket and one socket for each agent."""
