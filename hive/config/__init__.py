"""Agents' configuration: their files, the proposed and applied repositories, builders and the forge mirror."""
