"""From a pinned commit to a generation that an agent can run on. Used by the config pipeline and the agent actor."""

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol

from hive.config import tree
from hive.config.meta_flake import MetaFlake
from hive.config.repositories import UNFINISHED, Repositories
from hive.config.shown import shown
from hive.errors import HiveError, LimitReached
from hive.names import AgentName
from hive.paths import Paths
from hive.runtimes.protocol import Container, Ended, Limits, Running, Runtime

BUILD_TIME_LIMIT_S = 600
BUILD_MEMORY_LIMIT_BYTES = 4 * 1024**3
BUILD_PROCESSES_MAX = 512
OUTPUT_LINES_KEPT = 100
"""Of what the build command said; they end up in the tag failed/<id>."""
LOOK_EVERY_S = 0.1
BUILT_LIMIT_BYTES = 1024**3
"""What a build command may add to a configuration."""
BUILT_FILES_MAX = 50_000
BUILT_DEPTH_MAX = 64
CHUNK_BYTES = 1024 * 1024
RECORD: Final = "record"
SHELL: Final = "/bin/sh"


class BuildFailed(HiveError):
    """The configuration cannot be built; the message is what the operator and the manager are told."""

    code = "build_failed"


class Builder(Protocol):
    """Makes generations. Blocking; safe to call from several threads."""

    kind: str

    def build(self, name: AgentName, sha: str, *, uid: int | None) -> Path:
        """The generation's folder; at once when it was built before.

        `uid` is who runs foreign code when the daemon is root.

        Raises:
            BadRequest: the tree or agent.toml is wrong. BuildFailed: a build said so. Unavailable: a tool is missing.
        """
        ...

    def sweep(self, name: AgentName) -> None:
        """End the builds and remove the folders that a daemon that died has left. Raises Unavailable."""
        ...

    def deployed(self, name: AgentName, sha: str) -> None:
        """The meta flake pins the commit, which is applied main now; the same again changes nothing.

        Raises:
            HiveError: it could not.
        """
        ...

    def dropped(self, name: AgentName) -> None:
        """The meta flake forgets the agent. Raises as `deployed`."""
        ...


class PlainBuilder:
    """Every host's: the files of the commit, and what its build command adds to them."""

    kind = "plain"

    def __init__(self, paths: Paths, repositories: Repositories, runtime: Runtime, meta: MetaFlake):
        self._paths = paths
        self._meta = meta
        self._repositories = repositories
        self._runtime = runtime

    def build(
        self, name: AgentName, sha: str, *, uid: int | None, then: Callable[[Path], None] = lambda _: None
    ) -> Path:
        """As every builder; `then` adds to the folder before it becomes the generation."""
        if self._repositories.generation_folder(name, sha).is_dir():
            return self._repositories.generation(name, sha)
        with self._repositories.unfinished(name) as folder:
            # Outside of the agent's lock: other requests for it go on while a build runs.
            agent_file = self._repositories.check_out(name, sha, folder)
            if agent_file.build is not None:
                self._run(name, sha, agent_file.build, folder, uid)
            then(folder)
            with self._repositories.held(name):
                target = self._repositories.generation_folder(name, sha)
                return target if target.is_dir() else self._repositories.finish(name, sha, folder)

    def sweep(self, name: AgentName) -> None:
        for left in self._repositories.left_over(name):
            if (left / RECORD).is_dir():
                self._runtime.kill(left / RECORD)  # Containers outlive a daemon, those of builds too.
        self._repositories.sweep(name)

    def deployed(self, name: AgentName, sha: str) -> None:
        self._meta.pin({name: sha})

    def dropped(self, name: AgentName) -> None:
        self._meta.pin({name: None})

    def _run(self, name: AgentName, sha: str, command: str, folder: Path, uid: int | None) -> None:
        """Run the command in a copy of the files and add what it made; what was committed stays as it was."""
        with _work_folder(self._paths, name) as work:
            copy, record = work / "tree", work / RECORD
            copy.mkdir(mode=0o700)
            self._repositories.check_out(name, sha, copy)
            for empty in ("config", "socket"):
                (work / empty).mkdir(mode=0o755)
            container = Container(
                name=name,
                incarnation=f"build-{sha[:12]}",
                argv=(SHELL, "-c", f'cd "$HIVE_AGENT_STATE" && exec {SHELL} -c "$HIVE_BUILD"'),
                environment={"HOME": "/tmp", "HIVE_BUILD": command},
                state=copy,
                config=work / "config",
                socket_folder=work / "socket",
                record=record,
                uid=uid,
                limits=Limits(memory_bytes=BUILD_MEMORY_LIMIT_BYTES, processes=BUILD_PROCESSES_MAX),
            )
            self._runtime.start(container)
            self._await(record)
            add_built(copy, folder)

    def _await(self, record: Path) -> None:
        deadline = time.monotonic() + BUILD_TIME_LIMIT_S
        try:
            while isinstance(status := self._runtime.status(record), Running):
                if time.monotonic() > deadline:
                    raise BuildFailed(f"The build took longer than {BUILD_TIME_LIMIT_S} s.{self._said(record)}")
                time.sleep(LOOK_EVERY_S)
        finally:
            self._runtime.kill(record)  # Also what the command left running.
        if not isinstance(status, Ended) or status.exit.code != 0:
            how = status.exit.reason() if isinstance(status, Ended) else "nobody saw it end"
            raise BuildFailed(f"The build command failed ({how}).{self._said(record)}")

    def _said(self, record: Path) -> str:
        lines = self._runtime.output(record, lines=OUTPUT_LINES_KEPT)
        return "\n" + shown("\n".join(lines)) if lines else " It said nothing."


@contextlib.contextmanager
def _work_folder(paths: Paths, name: AgentName) -> Iterator[Path]:
    work = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=paths.agent(name)))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def add_built(source: Path, target: Path) -> None:
    """Copy what is in `source` and not in `target`: files, folders and links that stay inside.

    `source` was written by foreign code that has ended; nothing in it is followed.

    Raises:
        LimitReached: too much. BadRequest: a link that leaves.
    """
    _Added(source, target).copy()


class _Added:
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
            return  # Committed files stay as they were committed.
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
