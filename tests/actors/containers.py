"""Real containers of the process runtime that run a small program in place of the harness."""

from pathlib import Path
from typing import Any

import msgspec
import pykka

from hive.actors.agent import Agent, ContainerEnded, Do, GoDown, Message, Settle, Ticket
from hive.actors.provision import Provisioner
from hive.actors.supervisor import Supervisor
from hive.config.agent_file import AgentFile
from hive.config.builders import PlainBuilder
from hive.config.meta_flake import MetaFlake
from hive.config.repositories import Repositories
from hive.deciders.roster import Spawn
from hive.events.agents import Act
from hive.events.base import ApprovalId
from hive.paths import Paths
from hive.projections import agents as roster
from hive.runtimes.process import ProcessRuntime
from hive.runtimes.protocol import Container, Ended, Running
from hive.settings import Settings

from .stage import OPERATOR_BY, Stage, eventually

ACT_S = 60.0
RUNS_ON = "exec sleep 1000"
"""A program that stays until it is told to end."""
MODEL_URL = "http://127.0.0.1:9"


class SmallProgram(Provisioner):
    """Everything as for a real agent, but the program."""

    program = RUNS_ON

    def container(self, *about: Any) -> tuple[Container, AgentFile]:
        container, file = super().container(*about)
        return msgspec.structs.replace(container, argv=("/bin/sh", "-c", self.program)), file


class Containers:
    """Agents' actors over one stage. Whatever runs is killed at the end."""

    def __init__(self, folder: Path, stage: Stage):
        self.stage = stage
        self.paths = Paths(folder / "hive", folder / "run")
        self.runtime = ProcessRuntime()
        self.repositories = Repositories(self.paths)
        builder = PlainBuilder(self.paths, self.repositories, self.runtime, MetaFlake(self.paths))
        self.provisioner = SmallProgram(self.paths, Settings, self.repositories, builder, self.runtime, MODEL_URL)

    def close(self) -> None:
        for kind in (Supervisor, Agent):  # First: an act under way would start one more.
            for ref in pykka.ActorRegistry.get_by_class(kind):
                ref.stop()
        records = self.paths.record("any").parent
        for record in records.iterdir() if records.is_dir() else ():
            self.runtime.kill(record)

    def actor(self, name: str) -> "pykka.ActorRef[Any]":
        """The agent's actor, as the supervisor starts it."""
        return Agent.start(name, self.stage.client, self.provisioner, self.stage.clock)

    def spawned(self, name: str = "coder") -> "pykka.ActorRef[Any]":
        """An agent that runs."""
        self.stage.ask(Spawn(by=OPERATOR_BY, agent=name))
        ref = self.actor(name)
        self.settle(ref, name)
        return ref

    def do(self, ref: "pykka.ActorRef[Any]", act: Act, name: str = "coder", **how: Any) -> None:
        """Raises what the act came to."""
        self._told(ref, lambda ticket: Do(agent=name, act=act, by=OPERATOR_BY, ticket=ticket, **how))

    def settle(self, ref: "pykka.ActorRef[Any]", name: str = "coder") -> None:
        self._told(ref, lambda ticket: Settle(name, ticket))

    def go_down(self, ref: "pykka.ActorRef[Any]", name: str = "coder") -> None:
        self._told(ref, lambda ticket: GoDown(name, ticket))

    def deploy(self, ref: "pykka.ActorRef[Any]", id: ApprovalId) -> None:
        self.do(ref, "rebuild", approval_id=id)

    def apply(self, changes: dict[str, bytes], name: str = "coder") -> str:
        """Another configuration is wanted from now on."""
        sha = self.repositories.commit_files(name, changes, message="another", author="mara")
        self.repositories.applied(name).text("update-ref", "refs/heads/main", sha)
        return sha

    def row(self, name: str = "coder") -> roster.Agent:
        row = self.stage.client.read(lambda hive: hive.agents.all.get(name))
        assert row is not None
        return row

    def runs(self, name: str = "coder") -> bool:
        return isinstance(self.runtime.status(self.paths.record(name)), Running)

    def ended(self, name: str = "coder") -> Ended:
        """How the run ended, when it has."""
        record = self.paths.record(name)

        def over() -> Ended | None:
            status = self.runtime.status(record)
            return status if isinstance(status, Ended) else None

        found = eventually(over, f"{name} ends")
        assert found is not None
        return found

    def tell_of_the_end(self, ref: "pykka.ActorRef[Any]", name: str = "coder") -> None:
        """As the crash watch does."""
        ref.tell(ContainerEnded(name, self.ended(name)))

    def kicks(self, name: str = "coder") -> list[str]:
        """Reasons of the kicks that wait for an agent."""
        rows = self.stage.client.read(lambda hive: hive.messages.newest(name, 200))
        bodies = [msgspec.json.decode(row.body) for row in rows if row.sender == "system"]
        return [body["reason"] for body in bodies if body["event"] == "kicked"]

    def _told(self, ref: "pykka.ActorRef[Any]", message: Any) -> None:
        ticket = Ticket()
        made: Message = message(ticket)
        ref.tell(made)
        ticket.result(ACT_S)
