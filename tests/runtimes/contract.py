"""Helpers of the runtime tests: build containers in a temporary folder and wait for conditions."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import nixos_stand_in
import os_image
import pytest
from missing_tool import missing_tool

from hive.runtimes.choose import sandboxed
from hive.runtimes.nixos import SYSTEM
from hive.runtimes.os_tree import BootedRuntime
from hive.runtimes.process import ProcessRuntime
from hive.runtimes.protocol import Container, Ended, Exit, Limits, Mount, Network, Running, Runtime

PYTHON = "/usr/bin/python3"
DEADLINE_S = 30.0
"""Much longer than any step; reached only on failure."""
PAUSE_S = 0.01
FIRST_UID = 71000
UNLIMITED = Limits()


def sandboxed_runtimes() -> list[Runtime]:
    """Every isolating runtime. The image of nspawn is built by `usable`."""
    return sandboxed(os_image.FOLDER)


def all_runtimes() -> list[Runtime]:
    return [ProcessRuntime(), *sandboxed_runtimes()]


def boots(runtime: Runtime) -> bool:
    """Whether each container has its own operating system and user ids."""
    return isinstance(runtime, BootedRuntime)


def usable(runtime: Runtime) -> Runtime:
    """Skip a runtime that this host cannot run; fail in CI."""
    if boots(runtime) and os.geteuid() != 0:
        pytest.skip("only root boots systems")
    if runtime.kind == "nspawn":
        os_image.ensure()
    if runtime.kind == "nixos":
        nixos_stand_in.ensure_system()
        if not nixos_stand_in.SYSTEM.exists():
            pytest.skip("the stand-in system could not be built")
    if why := runtime.unavailable_reason():
        missing_tool(why)
    return runtime


def eventually(check: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not check():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(PAUSE_S)


class Lab:
    """Folders of one hive and containers under one runtime."""

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
        network: Network = "own",
    ) -> Container:
        self._incarnation += 1
        home = self.root / "agents" / name
        for folder in ("state", "config", "run", "record"):
            (home / folder).mkdir(parents=True, exist_ok=True)
        if self.runtime.kind == "nixos" and not (home / "config" / SYSTEM).is_symlink():
            (home / "config" / SYSTEM).symlink_to(nixos_stand_in.SYSTEM.resolve())
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
            network=network,
        )

    def uid(self, name: str) -> int:
        return FIRST_UID + sum(name.encode())

    def start(self, container: Container) -> Running:
        self._started.add(container.record)
        return self.runtime.start(container)

    def finish(self, container: Container) -> Exit:
        """Start a container and wait for its end."""
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
        """The output of a program that must succeed."""
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
    """A unix socket with the daemon's mode."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o660)
    listener.listen()
    return listener
