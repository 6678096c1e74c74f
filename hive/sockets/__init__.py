"""The daemon's doors to the world: the host socket and one socket for each agent."""
