"""Tests of the swarm."""
