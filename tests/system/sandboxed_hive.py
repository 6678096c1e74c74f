"""A hive whose agents run under bubblewrap and take turns with a scripted model."""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping

from missing_tool import missing_tool

from hive.runtimes.bubblewrap import BubblewrapRuntime

from .hive_process import HiveProcess


@contextlib.contextmanager
def sandboxed_hive(
    files: Mapping[str, str],
    *,
    model_url: str | None = None,
    dashboard: bool = False,
    paused: bool = False,
    python: str = sys.executable,
    user: int | None = None,
) -> Iterator[HiveProcess]:
    """A running hive with an agent `coder`. `files`: what its state folder holds at the start, `hive.toml` included.

    The manager is paused, and `coder` as well with `paused`. The rest is that of HiveProcess.
    """
    if why := BubblewrapRuntime().unavailable_reason():
        missing_tool(why)
    hive = HiveProcess(runtime="bubblewrap", model_url=model_url, dashboard=dashboard, python=python, user=user)
    try:
        for name, text in files.items():
            write(hive, name, text)
        hive.up()
        hive.ask("set_paused", name="manager", paused=True)
        hive.spawn("coder", paused=paused)
        yield hive
    finally:
        hive.close()


def write(hive: HiveProcess, name: str, text: str) -> None:
    """A file of the state folder, as the operator would leave it."""
    hive.paths.state.mkdir(exist_ok=True)
    path = hive.paths.state / name
    path.write_text(text)
    path.chmod(0o600)
    owner = hive.folder.stat()
    for one in (path, hive.paths.state):
        os.chown(one, owner.st_uid, owner.st_gid)
