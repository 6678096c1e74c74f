"""The demo's throw-away hive: folders, the scripted model and the daemon as processes of their own."""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hive.demo import scripts
from hive.errors import BadRequest, Unavailable
from hive.paths import Paths
from hive.runtimes import ownership
from hive.sockets.client import HostClient

MODEL_READY = "scripted model ready "
HIVE_READY = "hive ready "
END_S = 30.0
"""For the daemon to end after its agents were stopped."""
ANY_PORT = ("--listen", "127.0.0.1:0")
STATE_FOLDER = "hive-demo-state"


class Stage(msgspec.Struct, frozen=True):
    """A running demo hive."""

    paths: Paths
    ready: str
    """What the daemon said when its sockets accepted."""
    daemon: "subprocess.Popen[str]"


@contextlib.contextmanager
def running(keep: Path | None, dashboard: bool) -> Iterator[Stage]:
    """A hive with a scripted model, gone afterwards but for the state folder that is to be kept.

    Raises:
        BadRequest: there is something where the state is to be kept. Unavailable: the daemon cannot run here.
    """
    with contextlib.ExitStack() as cleanup:
        scratch = Path(tempfile.mkdtemp(prefix="hive-demo-"))
        cleanup.callback(ownership.remove, str(scratch))
        state = scratch / "state" if keep is None else _kept(keep)
        paths = Paths(state, scratch / "run")
        log = cleanup.enter_context((scratch / "daemon.log").open("w+"))
        model_url = cleanup.enter_context(_model())
        command = [sys.executable, "-m", "hive", "up", "--state", str(state), "--run", str(paths.run)]
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
        yield Stage(paths, ready, daemon)


@contextlib.contextmanager
def _model() -> Iterator[str]:
    command = [sys.executable, "-m", "hive.scripted_model", "--script", scripts.__file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = _first_line(process, MODEL_READY)
            if url is None:
                raise Unavailable("The scripted model did not start.")
            yield url
        finally:
            process.terminate()


def _kept(keep: Path) -> Path:
    state = keep.absolute() / STATE_FOLDER
    if state.exists():
        raise BadRequest(f"{state} is there already; remove it or keep this demo elsewhere.")
    state.mkdir(parents=True)
    return state


def _first_line(process: "subprocess.Popen[str]", prefix: str) -> str | None:
    assert process.stdout is not None
    line = process.stdout.readline()
    return line.removeprefix(prefix).strip() if line.startswith(prefix) else None


def _down(paths: Paths) -> None:
    """Stop the agents: they would outlive the daemon."""
    with contextlib.suppress(Unavailable), HostClient(paths.host_socket) as client:
        client.ask("shutdown")


def _end(daemon: "subprocess.Popen[str]") -> None:
    try:
        daemon.wait(END_S)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def tool_missing() -> str | None:
    """What the demo cannot do without."""
    return None if shutil.which("git") else "git is not installed: apt-get install git"
