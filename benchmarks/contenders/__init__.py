"""What is measured: each a process of its own that does one piece of work when asked and says how long it took."""
