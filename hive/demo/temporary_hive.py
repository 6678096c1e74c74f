"""The demo's temporary hive: its folders, and the scripted model and the daemon as child processes."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hive.demo import scripts
from hive.errors import BadRequest, Unavailable
from hive.host_users import free_first_uid
from hive.paths import Paths
from hive.runtimes import ownership
from hive.sockets.client import HostClient

MODEL_READY = "scripted model ready "
HIVE_READY = "hive ready "
END_S = 30.0
"""For the daemon to end after its agents have stopped."""
ANY_PORT = ("--listen", "127.0.0.1:0")
STATE_FOLDER = "hive-demo-state"


class DemoHive(msgspec.Struct, frozen=True):
    """A running demo hive."""

    paths: Paths
    ready: str
    """The daemon's `hive ready` line, without the prefix."""
    daemon: "subprocess.Popen[str]"


@contextlib.contextmanager
def running(keep: Path | None, dashboard: bool) -> Iterator[DemoHive]:
    """Run a hive with a scripted model. Afterwards removes everything but a state folder to keep.

    Raises:
        BadRequest: the state folder to keep already exists. Unavailable: the daemon cannot run on this host.
    """
    with contextlib.ExitStack() as cleanup:
        scratch = Path(tempfile.mkdtemp(prefix="hive-demo-"))
        cleanup.callback(ownership.remove, str(scratch))
        state = scratch / "state" if keep is None else _kept(keep)
        paths = Paths(state, scratch / "run")
        _choose_host_users(paths)
        log = cleanup.enter_context((scratch / "daemon.log").open("w+"))
        model_url = cleanup.enter_context(_model())
        command = [sys.executable, "-P", "-m", "hive", "up", "--state", str(state), "--run", str(paths.run)]
        daemon = subprocess.Popen(
            [*command, "--model-url", model_url, *(ANY_PORT if dashboard else ("--no-dashboard",))],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        cleanup.callback(_end, daemon)
        ready = _first_line(daemon, HIVE_READY)
        if ready is None:
            daemon.wait()
            log.seek(0)
            said = log.read().strip().splitlines()
            raise Unavailable(said[-1].removeprefix("hive: ") if said else "The daemon ended before it was ready.")
        cleanup.callback(_down, paths)
        yield DemoHive(paths, ready, daemon)


@contextlib.contextmanager
def _model() -> Iterator[str]:
    command = [sys.executable, "-P", "-m", "hive.scripted_model", "--script", scripts.__file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = _first_line(process, MODEL_READY)
            if url is None:
                raise Unavailable("The scripted model did not start.")
            yield url
        finally:
            process.terminate()


def _choose_host_users(paths: Paths) -> None:
    """Under root, give the demo host users of its own: another hive may run on this host."""
    if os.geteuid() != 0:
        return
    first = free_first_uid()
    paths.state.mkdir(parents=True, exist_ok=True, mode=0o755)
    helpers = f"[dashboard]\nuid = {first - 1}\n\n[broker]\nuid = {first - 2}\n"
    paths.settings.write_text(f"[runtime]\nfirst_uid = {first}\n\n{helpers}")
    paths.settings.chmod(0o600)


def _kept(keep: Path) -> Path:
    state = keep.absolute() / STATE_FOLDER
    if state.exists():
        raise BadRequest(f"{state} already exists. Remove it or choose another folder.")
    state.mkdir(parents=True)
    return state


def _first_line(process: "subprocess.Popen[str]", prefix: str) -> str | None:
    assert process.stdout is not None
    line = process.stdout.readline()
    return line.removeprefix(prefix).strip() if line.startswith(prefix) else None


def _down(paths: Paths) -> None:
    """Stop the agents, which would outlive the daemon."""
    with contextlib.suppress(Unavailable), HostClient(paths.host_socket) as client:
        client.ask("shutdown")


def _end(daemon: "subprocess.Popen[str]") -> None:
    try:
        daemon.wait(END_S)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def missing_tool() -> str | None:
    """The error if a required tool is missing."""
    return None if shutil.which("git") else "git is not installed: apt-get install git"
