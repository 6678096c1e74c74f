"""Prepares an agent's container: folders, configuration, environment, isolation. Used by the agent actors."""

import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from hive.actors.broker_environment import DUMMY_KEY, broker_environment, credential_hosts, redirected
from hive.actors.reach import Reach, reach
from hive.clock import MS_PER_S, TimeMs
from hive.config import agent_file
from hive.config.agent_file import AgentFile
from hive.config.builders import Builder
from hive.config.network import network_of, refuse_beyond
from hive.config.nix_builder import ENVIRONMENT
from hive.config.repositories import Repositories
from hive.events.agents import ContainerLimits
from hive.host_users import HostUsers, Reserved
from hive.names import MANAGER, AgentName
from hive.paths import Paths
from hive.projections.agents import Agent, Mount
from hive.runtimes import launch, limits, ownership, protocol, quota
from hive.runtimes.bubblewrap import maps_owners
from hive.runtimes.protocol import Bind, Container, Limits, Runtime
from hive.settings import Settings, secret

BUILD_SLOT = 0
"""The uid slot of build commands. No agent has it, so a build cannot access an agent's files."""


class Provisioner:
    """Has no state but its paths and settings. Blocking; called from actor threads."""

    def __init__(
        self,
        paths: Paths,
        settings: Callable[[], Settings],
        repositories: Repositories,
        builder: Builder,
        runtime: Runtime,
        model_url: str | None,
        users: HostUsers,
    ):
        self.paths = paths
        self.repositories = repositories
        self.builder = builder
        self.runtime = runtime
        self._settings = settings
        self._model_url = model_url
        self._users = users

    def uid(self, slot: int) -> int | None:
        """The host uid of an agent; None if it runs as the daemon's user."""
        return self.runtime.host_uid(self._settings().runtime.first_uid, slot)

    def reserve_uid(self, slot: int) -> int | None:
        """Like `uid`, for a process that starts now. Raises Unavailable: another hive uses this host user."""
        uid = self.uid(slot)
        if uid is not None:
            count = self.runtime.ids_per_agent
            first = self._settings().runtime.first_uid + slot * count
            self._users.reserve(Reserved("runtime.first_uid", first, count))
        return uid

    def socket_group(self, folder: Path, slot: int) -> int | None:
        """The group that must own an agent's socket; None: the daemon's group.

        A sandbox that maps the daemon's uid to the agent's needs no other group: it would lock the agent out.
        """
        uid = self.uid(slot)
        return None if uid is None or maps_owners(folder) else uid

    def reach(self, row: Agent) -> Reach:
        """Where an agent with its running configuration may connect before any rule."""
        settings, file = self._settings(), self.repositories.running_file(row.name, row.revision)
        return reach(settings, file, logs_in=self._model_url is None and settings.claude.api_key_file is None)

    def key_ms(self) -> TimeMs | None:
        """When the key or model address was configured, so that agents need no login. None: not configured."""
        claude = self._settings().claude
        if self._model_url is not None:
            return 0
        named = [self.paths.settings] if claude.base_url else []
        named += [self.paths.state / claude.api_key_file] if claude.api_key_file else []
        written = [int(path.stat().st_mtime * MS_PER_S) for path in named if path.exists()]
        return max(written, default=None)

    def credentials(self, name: AgentName) -> Path:
        """Where the CLI stores a login."""
        return self.paths.agent_state(name) / ".claude" / ".credentials.json"

    def wanted(self, name: AgentName) -> str:
        """The commit of `applied` to run. For a new agent, creates the repository from the template.

        Raises:
            Unavailable: git failed.
        """
        for parent in (self.paths.all_proposed, self.paths.all_applied, self.paths.agent(name)):
            parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        revision = self.repositories.ensure(name)
        for link, real in (("proposed", self.paths.proposed(name)), ("applied", self.paths.applied(name))):
            beside = self.paths.agent(name) / link
            if not beside.is_symlink():
                beside.symlink_to(os.path.relpath(real, beside.parent))
        return revision

    def build(self, name: AgentName, revision: str) -> Path:
        """The generation of a commit. Builds it if needed.

        Raises:
            BadRequest: invalid configuration. BuildFailed: its build command failed. Unavailable: a tool is missing.
        """
        generation = self.builder.build(name, revision, uid=self.reserve_uid(BUILD_SLOT))
        refuse_beyond(self._settings(), agent_file.load(generation, self._maximum()))
        return generation

    def default_limits(self) -> Limits:
        """The limits of an agent whose configuration sets none."""
        return limits.defaults(self._settings().limits, limits.host_size(self.paths.state))

    def limits(self, file: AgentFile) -> Limits:
        """The limits of an agent with this configuration."""
        own, usual = file.limits, self.default_limits()
        return msgspec.structs.replace(
            usual,
            memory_bytes=usual.memory_bytes if own.memory_mb is None else own.memory_mb * limits.MIB,
            processes=own.processes or usual.processes,
            cpu_percent=own.cpu_percent or usual.cpu_percent,
            disk_bytes=usual.disk_bytes if own.disk_mb is None else own.disk_mb * limits.MIB,
        )

    def _maximum(self) -> dict[str, int]:
        return limits.maximum(self._settings().limits, limits.host_size(self.paths.state))

    def container(
        self, row: Agent, mounts: list[Mount], binds: tuple[Bind, ...], revision: str
    ) -> tuple[Container, AgentFile]:
        """Prepare everything for a start on this revision.

        Raises:
            BadRequest: the configuration or hive.toml is wrong, in one line. Unavailable: git or the disk failed.
        """
        generation = self.build(row.name, revision)
        file = agent_file.load(generation)
        incarnation = secrets.token_hex(8)
        state = self.paths.agent_state(row.name)
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.paths.agent_run(row.name).mkdir(parents=True, exist_ok=True, mode=0o755)
        uid = self.reserve_uid(row.slot)
        container = Container(
            name=row.name,
            incarnation=incarnation,
            argv=(sys.executable, "-P", "-m", "hive.harness"),
            environment=self._environment(row, file, incarnation, generation),
            state=state,
            config=generation,
            socket_folder=self.paths.agent_run(row.name),
            record=self.paths.record(row.name),
            uid=uid,
            mounts=tuple(protocol.Mount(Path(one.host_path), one.folder, one.read_only) for one in mounts),
            binds=binds,
            network="host" if network_of(self._settings().network, file.network).mode == "host" else "own",
            limits=self.limits(file),
            hive=self.paths.control_group,
        )
        return container, file

    def limit_disk(self, row: Agent, limit_bytes: int) -> bool:
        """Put the agent's folders into its project and limit it; 0 removes the limit. False: no project quotas here.

        Raises:
            OSError: the kernel refused.
        """
        project = self.quota_project(row)
        if project is None:
            return False
        for folder in self.paths.limited_folders(row.name):
            quota.assign(str(folder.resolve()), project)
        quota.limit(str(self.paths.agents.resolve()), project, limit_bytes)
        return True

    def recorded(self, own: Limits, *, has_quota: bool) -> ContainerLimits:
        """The limits of a run as its event has them, with what this host does not enforce."""
        return ContainerLimits(
            memory_mb=None if own.memory_bytes is None else own.memory_bytes // limits.MIB,
            processes=own.processes,
            cpu_percent=own.cpu_percent,
            disk_mb=None if own.disk_bytes is None else own.disk_bytes // limits.MIB,
            disk_quota=has_quota,
            open_files=own.open_files,
            not_enforced=limits.not_enforced(self.runtime.kind, self.paths.state),
        )

    def quota_project(self, row: Agent) -> int | None:
        """The agent's project: its host uid. None: no project quotas here."""
        return self.uid(row.slot) if limits.has_quota(self.runtime.kind, self.paths.state) else None

    def wipe(self, name: AgentName) -> None:
        """Remove all files of an agent, without following links that it made."""
        for folder in (self.paths.agent(name), self.paths.proposed(name), self.paths.applied(name)):
            if folder.exists():
                ownership.remove(str(folder))

    def _path(self, generation: Path) -> dict[str, str]:
        """PATH with the packages of the agent's flake first."""
        if not (generation / ENVIRONMENT).is_symlink():
            return {}
        config = generation if self.runtime.kind == "process" else Path("/config")
        return {"PATH": f"{config / ENVIRONMENT / 'bin'}:{launch.PATH}:{Path(sys.executable).parent}"}

    def _environment(self, row: Agent, file: AgentFile, incarnation: str, generation: Path) -> dict[str, str]:
        settings = self._settings()
        environment = {
            **self._path(generation),
            **self._own_environment(row.name, file),
            "HIVE_AGENT_NAME": row.name,
            "HIVE_INCARNATION": incarnation,
            "HIVE_IDLE_MINUTES": str(settings.claude.idle_minutes),
        }
        if row.name == MANAGER:
            environment["HIVE_MANAGER"] = "1"
        if (model := row.model or (None if file.model else settings.claude.model)) is not None:
            environment["HIVE_MODEL"] = model
        if self.runtime.kind != "process":
            return {**environment, **broker_environment(row.name, settings, self._model_url)}
        base_url = self._model_url or settings.claude.base_url
        if base_url is not None:
            environment["ANTHROPIC_BASE_URL"] = base_url
        if self._model_url is not None:
            environment["ANTHROPIC_API_KEY"] = DUMMY_KEY + row.name
        elif settings.claude.api_key_file is not None:
            environment["ANTHROPIC_API_KEY"] = secret(self.paths.state, settings.claude.api_key_file)
        return environment

    def _own_environment(self, name: AgentName, file: AgentFile) -> dict[str, str]:
        if self.runtime.kind == "process":
            return file.environment
        return redirected(file.environment, credential_hosts(self._settings(), name))
