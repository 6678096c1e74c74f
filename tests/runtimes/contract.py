"""A laboratory for runtimes: builds containers in a temporary folder and waits for what must happen."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hive.runtimes.choose import walled
from hive.runtimes.process import ProcessRuntime
from hive.runtimes.protocol import Container, Ended, Exit, Limits, Mount, Running, Runtime

DEADLINE_S = 30.0
"""Far more than anything here takes; only a defect waits for it."""
PAUSE_S = 0.01
FIRST_UID = 71000
UNLIMITED = Limits()


def walled_runtimes() -> list[Runtime]:
    """Every runtime with walls; a test over them shows that walls hold under each."""
    return walled()


def all_runtimes() -> list[Runtime]:
    return [ProcessRuntime(), *walled_runtimes()]


def usable(runtime: Runtime) -> Runtime:
    """Skip what this host cannot run; on the build machine nothing may be missing."""
    if why := runtime.lacks():
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    return runtime


def eventually(check: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not check():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(PAUSE_S)


class Lab:
    """One hive's folders for any number of agents under one runtime."""

    def __init__(self, runtime: Runtime, root: Path) -> None:
        self.runtime = runtime
        self.root = root
        self._incarnation = 0
        self._started: set[Path] = set()

    def container(
        self,
        *argv: str,
        name: str = "coder",
        environment: dict[str, str] | None = None,
        mounts: tuple[Mount, ...] = (),
        limits: Limits = UNLIMITED,
    ) -> Container:
        self._incarnation += 1
        home = self.root / "agents" / name
        for folder in ("state", "config", "run", "record"):
            (home / folder).mkdir(parents=True, exist_ok=True)
        return Container(
            name=name,
            incarnation=f"{name}-{self._incarnation}",
            argv=argv,
            environment=environment or {},
            state=home / "state",
            config=home / "config",
            socket_folder=home / "run",
            record=home / "record",
            uid=self.uid(name) if os.geteuid() == 0 else None,
            mounts=mounts,
            limits=limits,
        )

    def uid(self, name: str) -> int:
        return FIRST_UID + sum(name.encode())

    def start(self, container: Container) -> Running:
        self._started.add(container.record)
        return self.runtime.start(container)

    def finish(self, container: Container) -> Exit:
        """Start it and wait for its end."""
        self.start(container)
        return self.ended(container)

    def ended(self, container: Container) -> Exit:
        eventually(lambda: isinstance(self.runtime.status(container.record), Ended), "the run ends")
        status = self.runtime.status(container.record)
        assert isinstance(status, Ended)
        assert status.incarnation == container.incarnation
        return status.exit

    def output(self, container: Container, lines: int = 1000) -> list[str]:
        return self.runtime.output(container.record, lines=lines)

    def run(self, *argv: str, **more: object) -> list[str]:
        """What a program prints that must succeed."""
        container = self.container(*argv, **more)  # type: ignore[arg-type]
        exit_ = self.finish(container)
        assert exit_.code == 0, (exit_, self.output(container))
        return self.output(container)

    def says(self, container: Container, word: str) -> None:
        eventually(lambda: word in self.output(container), f"the program says {word}")

    def close(self) -> None:
        for record in self._started:
            self.runtime.kill(record)


def listen(path: Path) -> socket.socket:
    """A unix socket as the daemon makes it."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o660)
    listener.listen()
    return listener
