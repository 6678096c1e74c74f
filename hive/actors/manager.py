"""The manager's own actor: an agent that sees the repositories of all the others."""

from hive.actors.agent import Agent
from hive.runtimes.protocol import Bind


class Manager(Agent):
    """Like every agent; its container also shows what it looks after.

    A crash loses nothing, as with every agent.
    """

    def _binds(self) -> tuple[Bind, ...]:
        paths = self._provisioner.paths
        for folder in (paths.all_proposed, paths.all_applied, paths.meta):
            folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        return (
            Bind(paths.all_proposed, "/agents", read_only=False),
            Bind(paths.all_applied, "/applied"),
            Bind(paths.meta, "/meta"),
        )
