"""Several hives as one swarm over NATS JetStream. Imported only where `[swarm]` is set."""
