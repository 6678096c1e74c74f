"""The harness with the real Claude Code CLI, the scripted model and a fake daemon on the agent socket."""
