"""The broker: a process without privileges that connects agents to the outside, adds keys and meters model use."""
