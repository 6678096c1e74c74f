"""The harness with the real Claude Code CLI, the scripted model and a peer that speaks the daemon's protocol."""
