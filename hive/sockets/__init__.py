"""The daemon's unix sockets: the host socket, the dashboard's socket and one socket for each agent."""
