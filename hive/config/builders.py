"""Builds generations from pinned commits. Used by the config pipeline and the agent actor."""

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol

import msgspec

from hive.config import tree
from hive.config.agent_file import AgentFile
from hive.config.escaping import escaped
from hive.config.meta_flake import MetaFlake
from hive.config.repositories import UNFINISHED, Repositories
from hive.errors import HiveError, LimitReached
from hive.names import AgentName
from hive.paths import Paths
from hive.runtimes import limits
from hive.runtimes.protocol import Container, Ended, Network, Running, Runtime

BUILD_TIME_LIMIT_S = 600
OUTPUT_LINES_KEPT = 100
"""Lines of the build output that the tag failed/<id> keeps."""
LOOK_EVERY_S = 0.1
BUILT_LIMIT_BYTES = 1024**3
"""Size limit of a build command's output."""
BUILT_FILES_MAX = 50_000
BUILT_DEPTH_MAX = 64
CHUNK_BYTES = 1024 * 1024
RECORD: Final = "record"
SHELL: Final = "/bin/sh"


class Access(msgspec.Struct, frozen=True):
    """What a build command has of its agent: the variables and the network."""

    environment: dict[str, str] = {}
    network: Network = "own"


class BuildFailed(HiveError):
    """The configuration cannot be built. The operator and the manager see the message."""

    code = "build_failed"


class Builder(Protocol):
    """Builds generations. Blocking and thread-safe."""

    kind: str

    def build(self, name: AgentName, sha: str, *, uid: int | None) -> Path:
        """The generation's folder. Returns at once if it already exists.

        `uid` runs the build command when the daemon is root.

        Raises:
            BadRequest: the tree or agent.toml is wrong. BuildFailed: the build failed. Unavailable: a tool is missing.
        """
        ...

    def sweep(self, name: AgentName) -> None:
        """Stop builds and remove folders that a crashed daemon left. Raises Unavailable."""
        ...

    def deployed(self, name: AgentName, sha: str) -> None:
        """Pin the commit, now applied main, in the meta flake. Idempotent.

        Raises:
            HiveError: the pin could not be set.
        """
        ...

    def dropped(self, name: AgentName) -> None:
        """Remove the agent from the meta flake. Raises as `deployed`."""
        ...


class PlainBuilder:
    """The builder of hosts without Nix: the files of the commit and the output of its build command."""

    kind = "plain"

    def __init__(
        self,
        paths: Paths,
        repositories: Repositories,
        runtime: Runtime,
        meta: MetaFlake,
        access: Callable[[AgentName, AgentFile], Access] = lambda _name, _file: Access(),
    ):
        self._paths = paths
        self._access = access
        self._meta = meta
        self._repositories = repositories
        self._runtime = runtime

    def build(
        self, name: AgentName, sha: str, *, uid: int | None, then: Callable[[Path], None] = lambda _: None
    ) -> Path:
        """See Builder. `then` may add files before the folder becomes the generation."""
        if self._repositories.generation_folder(name, sha).is_dir():
            return self._repositories.generation(name, sha)
        with self._repositories.unfinished(name) as folder:
            # Without the agent's lock, so that a build does not block other requests.
            agent_file = self._repositories.check_out(name, sha, folder)
            if agent_file.build is not None:
                self._run(name, sha, agent_file.build, folder, uid, self._access(name, agent_file))
            then(folder)
            with self._repositories.locked(name):
                target = self._repositories.generation_folder(name, sha)
                return target if target.is_dir() else self._repositories.finish(name, sha, folder)

    def sweep(self, name: AgentName) -> None:
        for left in self._repositories.leftovers(name):
            if (left / RECORD).is_dir():
                self._runtime.kill(left / RECORD)  # Build containers outlive the daemon too.
        self._repositories.sweep(name)

    def deployed(self, name: AgentName, sha: str) -> None:
        self._meta.pin({name: sha})

    def dropped(self, name: AgentName) -> None:
        self._meta.pin({name: None})

    def _run(self, name: AgentName, sha: str, command: str, folder: Path, uid: int | None, access: Access) -> None:
        """Run the command in a copy of the files and add its output. Committed files do not change."""
        with _work_folder(self._paths, name) as work:
            copy, record = work / "tree", work / RECORD
            copy.mkdir(mode=0o700)
            self._repositories.check_out(name, sha, copy)
            (work / "config").mkdir(mode=0o755)
            # The daemon binds the build's own `net.sock` there; the broker gives it the agent's rules.
            socket_folder = self._paths.build_run(name)
            socket_folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            container = Container(
                name=name,
                incarnation=f"build-{sha[:12]}",
                argv=(SHELL, "-c", f'cd "$HIVE_AGENT_STATE" && exec {SHELL} -c "$HIVE_BUILD"'),
                environment={**access.environment, "HOME": "/tmp", "HIVE_BUILD": command},
                state=copy,
                config=work / "config",
                socket_folder=socket_folder,
                record=record,
                uid=uid,
                network=access.network,
                limits=limits.of_build(limits.host_size(self._paths.state)),
                hive=self._paths.control_group,
            )
            self._runtime.start(container)
            self._await(record)
            copy_build_output(copy, folder)

    def _await(self, record: Path) -> None:
        deadline = time.monotonic() + BUILD_TIME_LIMIT_S
        try:
            while isinstance(status := self._runtime.status(record), Running):
                if time.monotonic() > deadline:
                    raise BuildFailed(f"The build took longer than {BUILD_TIME_LIMIT_S} s.{self._output_text(record)}")
                time.sleep(LOOK_EVERY_S)
        finally:
            self._runtime.kill(record)  # Kills background processes too.
        if not isinstance(status, Ended) or status.exit.code != 0:
            how = status.exit.reason() if isinstance(status, Ended) else "unknown exit"
            raise BuildFailed(f"The build command failed ({how}).{self._output_text(record)}")

    def _output_text(self, record: Path) -> str:
        lines = self._runtime.output(record, lines=OUTPUT_LINES_KEPT)
        return "\n" + escaped("\n".join(lines)) if lines else " It printed nothing."


@contextlib.contextmanager
def _work_folder(paths: Paths, name: AgentName) -> Iterator[Path]:
    work = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=paths.agent(name)))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def copy_build_output(source: Path, target: Path) -> None:
    """Copy files, folders and links that `target` does not have. Links must stay inside.

    Untrusted code wrote `source`, so no link in it is followed.

    Raises:
        LimitReached: the output is too large. BadRequest: a link leaves the tree.
    """
    _BuildOutput(source, target).copy()


class _BuildOutput:
    def __init__(self, source: Path, target: Path) -> None:
        self._source = source
        self._target = target
        self._bytes = 0
        self._files = 0

    def copy(self) -> None:
        folder = os.open(self._source, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            self._folder(folder, "", 0)
        finally:
            os.close(folder)

    def _folder(self, source: int, prefix: str, depth: int) -> None:
        if depth > BUILT_DEPTH_MAX:
            raise LimitReached(f"The build made folders more than {BUILT_DEPTH_MAX} deep.")
        with os.scandir(source) as found:
            names = sorted(entry.name for entry in found)
        for name in names:
            self._files += 1
            if self._files > BUILT_FILES_MAX:
                raise LimitReached(f"The build made more than {BUILT_FILES_MAX} files.")
            self._one(source, name, f"{prefix}{name}", depth)

    def _one(self, source: int, name: str, path: str, depth: int) -> None:
        target = self._target / path
        mode = os.stat(name, dir_fd=source, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            if target.is_symlink() or not target.is_dir():
                if os.path.lexists(target):
                    return
                target.mkdir(mode=0o755)
            folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=source)
            try:
                self._folder(folder, f"{path}/", depth + 1)
            finally:
                os.close(folder)
        elif os.path.lexists(target):
            return  # Committed files do not change.
        elif stat.S_ISLNK(mode):
            target.symlink_to(tree.checked_target(path, os.readlink(name, dir_fd=source).encode()))
        elif stat.S_ISREG(mode):
            self._file(source, name, target, 0o755 if mode & stat.S_IXUSR else 0o644)

    def _file(self, source: int, name: str, target: Path, mode: int) -> None:
        read = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=source)
        with os.fdopen(read, "rb") as file, target.open("xb") as copy:
            os.fchmod(copy.fileno(), mode)
            while chunk := file.read(CHUNK_BYTES):
                self._bytes += len(chunk)
                if self._bytes > BUILT_LIMIT_BYTES:
                    raise LimitReached(f"The build made more than {BUILT_LIMIT_BYTES} bytes.")
                copy.write(chunk)
            copy.flush()
            os.fsync(copy.fileno())
