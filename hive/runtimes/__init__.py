"""Where agents run: one protocol, one module for each kind of wall."""
