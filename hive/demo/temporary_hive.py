"""The demo's temporary hive: its folders, and the scripted model and the daemon as child processes."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from hive.demo import scripts
from hive.errors import BadRequest, HiveError, Unavailable
from hive.events.log import LogReader, verify
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
        scratch = temporary_folder(cleanup)
        state = scratch / "state" if keep is None else kept(keep)
        paths = Paths(state, scratch / "run")
        choose_host_users(paths)
        model_url = cleanup.enter_context(model(scripts.__file__))
        demo = start(paths, scratch / "daemon.log", model_url, *(ANY_PORT if dashboard else ("--no-dashboard",)))
        cleanup.callback(end, demo)
        yield demo


def temporary_folder(cleanup: contextlib.ExitStack) -> Path:
    """It goes with the demo."""
    scratch = Path(tempfile.mkdtemp(prefix="hive-demo-"))
    cleanup.callback(ownership.remove, str(scratch))
    return scratch


def start(paths: Paths, log: Path, model_url: str, *options: str, front: Sequence[str] = ()) -> DemoHive:
    """Start a daemon and wait until it is ready; `front` is put in front of the command.

    Raises:
        Unavailable: the daemon cannot run on this host; the text is its own.
    """
    command = [sys.executable, "-P", "-m", "hive", "up", "--state", str(paths.state), "--run", str(paths.run)]
    with log.open("a") as output:
        begins = output.tell()
        daemon = subprocess.Popen(
            [*front, *command, "--model-url", model_url, *options], stdout=subprocess.PIPE, stderr=output, text=True
        )
    ready = _first_line(daemon, HIVE_READY)
    if ready is None:
        daemon.wait()
        said = log.read_text()[begins:].strip().splitlines()
        raise Unavailable(said[-1].removeprefix("hive: ") if said else "The daemon ended before it was ready.")
    return DemoHive(paths, ready, daemon)


def end(demo: DemoHive) -> None:
    """Stop the agents, which would outlive the daemon, and then the daemon."""
    with contextlib.suppress(HiveError), HostClient(demo.paths.host_socket) as client:
        client.ask("shutdown")
    try:
        demo.daemon.wait(END_S)
    except subprocess.TimeoutExpired:
        demo.daemon.kill()
        demo.daemon.wait()


@contextlib.contextmanager
def model(script: str, front: Sequence[str] = ()) -> Iterator[str]:
    """A scripted model; its URL. Raises Unavailable: it did not start."""
    command = [*front, sys.executable, "-P", "-m", "hive.scripted_model", "--script", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = _first_line(process, MODEL_READY)
            if url is None:
                raise Unavailable("The scripted model did not start.")
            yield url
        finally:
            process.terminate()


def choose_host_users(*hives: Paths) -> None:
    """Under root, give each hive host users of its own: another hive may run on this host."""
    chosen = set[int]()
    while os.geteuid() == 0 and len(chosen) < len(hives):
        chosen.add(free_first_uid())
    for paths, first in zip(hives, chosen, strict=False):  # Without root, no uids are chosen.
        _write_host_users(paths, first)


def _write_host_users(paths: Paths, first: int) -> None:
    paths.state.mkdir(parents=True, exist_ok=True, mode=0o755)
    helpers = f"[dashboard]\nuid = {first - 1}\n\n[broker]\nuid = {first - 2}\n"
    paths.settings.write_text(f"[runtime]\nfirst_uid = {first}\n\n{helpers}")
    paths.settings.chmod(0o600)


def kept(keep: Path) -> Path:
    """A new state folder there. Raises BadRequest: there is one."""
    state = keep.absolute() / STATE_FOLDER
    if state.exists():
        raise BadRequest(f"{state} already exists. Remove it or choose another folder.")
    state.mkdir(parents=True)
    return state


def _first_line(process: "subprocess.Popen[str]", prefix: str) -> str | None:
    assert process.stdout is not None
    line = process.stdout.readline()
    return line.removeprefix(prefix).strip() if line.startswith(prefix) else None


def missing_tool() -> str | None:
    """The error if a required tool is missing."""
    return None if shutil.which("git") else "git is not installed: apt-get install git"


def verified_events(paths: Paths) -> int:
    """How many events the log of a running hive has. Raises Unavailable: its chain is broken."""
    reader = LogReader(paths.state, daemon_runs=True)
    try:
        count, broken = verify(reader.rows(1))
    finally:
        reader.close()
    if broken is not None:
        raise Unavailable(f"Event {broken.seq} in {paths.events} {broken.why}.")
    return count
