"""The configuration parts of the daemon: repositories, builder, pipeline and mirror."""

from collections.abc import Callable
from typing import Any

import pykka

from hive.actors import config_pipeline, forge_mirror, mail
from hive.actors.agent import Do
from hive.actors.broker_environment import build_access
from hive.actors.config_pipeline import ConfigPipeline, Watch
from hive.actors.forge_mirror import Changed, ForgeMirror, MirrorStatus
from hive.actors.journal_clients import BlockingJournalClient
from hive.actors.provision import Provisioner
from hive.actors.supervisor import Child
from hive.clock import Clock
from hive.config.builders import Builder, PlainBuilder
from hive.config.meta_flake import NIXPKGS, MetaFlake
from hive.config.nix import NixHost
from hive.config.nix_builder import NIXOS, NixBuilder
from hive.config.proposals import Proposals
from hive.config.repositories import Repositories
from hive.errors import Unavailable
from hive.names import AgentName
from hive.paths import Paths
from hive.runtimes.bubblewrap import BubblewrapRuntime
from hive.runtimes.nixos import NixosRuntime
from hive.runtimes.protocol import Runtime
from hive.settings import Settings


class Configuration:
    """Created before the actors, which use its parts."""

    def __init__(self, paths: Paths, settings: Callable[[], Settings], runtime: Runtime):
        """Raises Unavailable: hive.toml enables Nix, and this host does not support it."""
        self._paths = paths
        self._settings = settings
        self.repositories = Repositories(paths)
        self.proposals = Proposals(paths, self.repositories)
        self.builder = _builder(paths, self.repositories, runtime, settings)
        self.mirror = MirrorStatus()
        self._pipeline: pykka.ActorRef[Any] | None = None
        self._mirror: pykka.ActorRef[Any] | None = None

    def children(
        self,
        journal: BlockingJournalClient,
        clock: Clock,
        provisioner: Provisioner,
        to_supervisor: Callable[[Do], bool],
    ) -> list[Child]:
        """The actors to start. The mirror is first because the pipeline sends to it."""

        def mirror() -> "pykka.ActorRef[Any]":
            forge = lambda: self._settings().forge  # noqa: E731
            self._mirror = ForgeMirror.start(journal, clock, self.repositories, self._paths.state, forge, self.mirror)
            return self._mirror

        def pipeline() -> "pykka.ActorRef[Any]":
            self._pipeline = ConfigPipeline.start(
                journal, clock, provisioner, self.proposals, to_supervisor, self.applied_changed
            )
            return self._pipeline

        return [
            Child("forge mirror", mirror, listens=forge_mirror.LISTENS),
            Child("config pipeline", pipeline, listens=config_pipeline.LISTENS),
        ]

    def watch(self, message: Watch) -> bool:
        """Settle a ticket when an approval is finished. False: no pipeline runs."""
        return self._pipeline is not None and mail.tell(self._pipeline, message)

    def applied_changed(self, name: AgentName) -> None:
        """Mirror the agent's applied repository."""
        if self._mirror is not None:
            mail.tell(self._mirror, Changed(name))


def _builder(paths: Paths, repositories: Repositories, runtime: Runtime, settings: Callable[[], Settings]) -> Builder:
    nix = settings().nix
    nixpkgs, meta = nix.nixpkgs, MetaFlake(paths, nix.nixpkgs or NIXPKGS)
    is_nixos = runtime.kind == NixosRuntime.kind
    if nixpkgs is None and is_nixos:
        raise Unavailable("The runtime nixos builds systems with Nix: set `[nix] nixpkgs` in hive.toml.")
    # Under nixos a build command runs before there is a system that it could run in.
    walls = BubblewrapRuntime() if is_nixos else runtime
    access = lambda name, file: build_access(name, file, settings(), walls.kind)  # noqa: E731
    plain = PlainBuilder(paths, repositories, walls, meta, access)
    if nixpkgs is None:
        return plain
    host = NixHost(nixpkgs=nixpkgs, options=nix.options)
    builder = NixBuilder(paths, repositories, plain, meta, host, *([NIXOS] if is_nixos else []))
    if (lack := builder.lacks()) is not None:
        raise Unavailable(f"hive.toml enables Nix. {lack}")
    return builder
