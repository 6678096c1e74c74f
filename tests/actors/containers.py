"""Real containers of the process runtime. They run a shell command instead of the harness."""

from pathlib import Path
from typing import Any

import msgspec
import pykka

from hive.actors.agent import Agent, ContainerEnded, Do, GoDown, Message, Settle, Ticket
from hive.actors.epoch_gate import EpochGate
from hive.actors.provision import Provisioner
from hive.actors.supervisor import Supervisor
from hive.config.agent_file import AgentFile
from hive.config.builders import PlainBuilder
from hive.config.meta_flake import MetaFlake
from hive.config.repositories import Repositories
from hive.deciders.roster import Spawn
from hive.events.agents import Act
from hive.events.base import ApprovalId
from hive.host_users import HostUsers
from hive.paths import Paths
from hive.projections import agents as roster
from hive.runtimes.process import ProcessRuntime
from hive.runtimes.protocol import Container, Ended, Running
from hive.settings import Settings

from .journal_environment import OPERATOR_BY, JournalEnvironment, eventually

ACT_S = 60.0
RUNS_ON = "exec sleep 1000"
"""A program that runs until it is killed."""
MODEL_URL = "http://127.0.0.1:9"


class SmallProgram(Provisioner):
    """A real provisioner that replaces only the program."""

    program = RUNS_ON

    def container(self, *about: Any) -> tuple[Container, AgentFile]:
        container, file = super().container(*about)
        return msgspec.structs.replace(container, argv=("/bin/sh", "-c", self.program)), file


class Containers:
    """Agent actors with real containers. `close` kills all of them."""

    def __init__(self, folder: Path, env: JournalEnvironment):
        self.env = env
        self.paths = Paths(folder / "hive", folder / "run")
        self.runtime = ProcessRuntime()
        self.gate = EpochGate()
        self.repositories = Repositories(self.paths)
        builder = PlainBuilder(self.paths, self.repositories, self.runtime, MetaFlake(self.paths))
        self.provisioner = SmallProgram(
            self.paths, Settings, self.repositories, builder, self.runtime, MODEL_URL, HostUsers()
        )

    def close(self) -> None:
        for kind in (Supervisor, Agent):  # First: a running act could start another container.
            for ref in pykka.ActorRegistry.get_by_class(kind):
                ref.stop()
        records = self.paths.record("any").parent
        for record in records.iterdir() if records.is_dir() else ():
            self.runtime.kill(record)

    def actor(self, name: str) -> "pykka.ActorRef[Any]":
        """Start the agent's actor as the supervisor does."""
        return Agent.start(name, self.env.client, self.provisioner, self.env.clock, self.gate)

    def spawned(self, name: str = "coder") -> "pykka.ActorRef[Any]":
        """Spawn an agent and wait until it runs."""
        self.env.ask(Spawn(by=OPERATOR_BY, agent=name))
        ref = self.actor(name)
        self.settle(ref, name)
        return ref

    def do(self, ref: "pykka.ActorRef[Any]", act: Act, name: str = "coder", **how: Any) -> None:
        """Run an act and wait for it. Raises its error."""
        self._told(ref, lambda ticket: Do(agent=name, act=act, by=OPERATOR_BY, ticket=ticket, **how))

    def settle(self, ref: "pykka.ActorRef[Any]", name: str = "coder") -> None:
        self._told(ref, lambda ticket: Settle(name, ticket))

    def go_down(self, ref: "pykka.ActorRef[Any]", name: str = "coder") -> None:
        self._told(ref, lambda ticket: GoDown(name, ticket))

    def deploy(self, ref: "pykka.ActorRef[Any]", id: ApprovalId) -> None:
        self.do(ref, "rebuild", approval_id=id)

    def apply(self, changes: dict[str, bytes], name: str = "coder") -> str:
        """Commit another configuration to `applied`."""
        sha = self.repositories.commit_files(name, changes, message="another", author="mara")
        self.repositories.applied(name).text("update-ref", "refs/heads/main", sha)
        return sha

    def row(self, name: str = "coder") -> roster.Agent:
        row = self.env.client.read(lambda hive: hive.agents.all.get(name))
        assert row is not None
        return row

    def runs(self, name: str = "coder") -> bool:
        return isinstance(self.runtime.status(self.paths.record(name)), Running)

    def ended(self, name: str = "coder") -> Ended:
        """Wait for the end of the run."""
        record = self.paths.record(name)

        def over() -> Ended | None:
            status = self.runtime.status(record)
            return status if isinstance(status, Ended) else None

        found = eventually(over, f"{name} ends")
        assert found is not None
        return found

    def tell_of_the_end(self, ref: "pykka.ActorRef[Any]", name: str = "coder") -> None:
        """Report the end to the actor, as the crash watch does."""
        ref.tell(ContainerEnded(name, self.ended(name)))

    def kicks(self, name: str = "coder") -> list[str]:
        """The reasons of the kicks in an agent's inbox."""
        rows = self.env.client.read(lambda hive: hive.messages.newest(name, 200))
        bodies = [msgspec.json.decode(row.body) for row in rows if row.sender == "system"]
        return [body["reason"] for body in bodies if body["event"] == "kicked"]

    def _told(self, ref: "pykka.ActorRef[Any]", message: Any) -> None:
        ticket = Ticket()
        made: Message = message(ticket)
        ref.tell(made)
        ticket.result(ACT_S)
