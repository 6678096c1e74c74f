"""The daemon's actors: each a mailbox round pure rules or round one side effect."""
