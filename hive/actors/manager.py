"""The manager's actor: an agent that also sees the repositories of the other agents."""

from hive.actors.agent import Agent
from hive.runtimes.protocol import Bind


class Manager(Agent):
    """An agent whose container also mounts the repositories of all agents.

    A crash loses nothing; see `Agent`.
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
