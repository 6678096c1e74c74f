"""Fixtures: a harness process, its fake daemon and its scripted model."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hive.scripted_model import AnyScript, ScriptedModel

from .peer import DEADLINE_S, Peer

NAME = "coder"


class Run:
    """One harness process with its daemon and model."""

    def __init__(self, folder: Path, *, manager: bool = False) -> None:
        self.state = folder / "state"
        self.config = folder / "config"
        self.state.mkdir()
        self.config.mkdir()
        self.name = "manager" if manager else NAME
        self.manager = manager
        self.peer = Peer(folder / "hive.sock", name=self.name, manager=manager)
        self.model = ScriptedModel()
        self.extra: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "harness.log"
        self.python_path: Path | None = None
        """A folder with the hive to run; None: the installed one."""

    def start(self, script: AnyScript | None = None, *, key: bool = True, idle_minutes: float = 10) -> None:
        if script is not None:
            self.model.play(self.name, script)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.state),
            "HIVE_AGENT_SOCKET": str(self.peer.path),
            "HIVE_AGENT_STATE": str(self.state),
            "HIVE_AGENT_CONFIG": str(self.config),
            "HIVE_AGENT_NAME": self.name,
            "HIVE_INCARNATION": f"run-{time.monotonic_ns()}",
            "HIVE_IDLE_MINUTES": str(idle_minutes),
            "ANTHROPIC_BASE_URL": self.model.url,
            **({"HIVE_MANAGER": "1"} if self.manager else {}),
            **({"ANTHROPIC_API_KEY": f"hive-dummy-{self.name}"} if key else {}),
            **({} if self.python_path is None else {"PYTHONPATH": str(self.python_path)}),
            **self.extra,
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "hive.harness"],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def stop(self) -> int:
        """Send SIGTERM, as a runtime does, and return the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=DEADLINE_S)

    def kill(self) -> None:
        """Send SIGKILL to the whole container."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=DEADLINE_S)

    def cli_pids(self) -> list[int]:
        """The CLI processes of this harness."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == self.pid and fields[0] != "Z" and "claude" in (entry / "cmdline").read_text():
                    found.append(int(entry.name))
        return found

    def rss_mb(self) -> float:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmRSS")

    def eventually(self, what: Callable[[], object], *, seconds: float = DEADLINE_S) -> None:
        """Poll for a condition outside the peer."""
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.02)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    yield from _run(tmp_path, manager=False)


@pytest.fixture
def manager_run(tmp_path: Path) -> Iterator[Run]:
    yield from _run(tmp_path, manager=True)


def _run(folder: Path, *, manager: bool) -> Iterator[Run]:
    one = Run(folder, manager=manager)
    with one.model, one.peer:
        yield one
        one.kill()
