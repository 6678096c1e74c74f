"""The broker as a process of its own; the tests take the daemon's place on its channel and serve what it reaches."""
