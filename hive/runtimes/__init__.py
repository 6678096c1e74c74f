"""Runtimes that start agents in containers: one protocol, one module for each kind."""
