"""Runs a real systemd-journald in its own namespace for one test, then removes its socket and files."""

import contextlib
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from missing_tool import missing_tool

JOURNALD = Path("/lib/systemd/systemd-journald")
DEADLINE_S = 30.0
STEP_S = 0.02


@contextlib.contextmanager
def namespace() -> Iterator[str]:
    """A namespace with a running journal. Skips if the host cannot run one."""
    if not (JOURNALD.exists() and shutil.which("journalctl")):
        missing_tool("systemd is not installed")
    if os.geteuid() != 0:
        pytest.skip("only root may start a systemd-journald")
    if not Path("/etc/machine-id").exists():
        pytest.skip("this host has no /etc/machine-id, without which there is no journal")
    name = f"hivetest{secrets.token_hex(4)}"
    run, machine = Path("/run/systemd", f"journal.{name}"), Path("/etc/machine-id").read_text().strip()
    settings = Path("/run/systemd", f"journald@{name}.conf.d")
    settings.mkdir(parents=True)
    (settings / "volatile.conf").write_text("[Journal]\nStorage=volatile\n")  # Nothing of it under /var.
    journald = subprocess.Popen([JOURNALD, name], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not (run / "socket").exists():
            assert journald.poll() is None, f"it ended with {journald.returncode}"
            assert time.monotonic() < deadline, "it opens no socket"
            time.sleep(STEP_S)
        yield name
    finally:
        journald.kill()
        journald.wait()
        for folder in (run, settings, Path("/run/log/journal", f"{machine}.{name}")):
            shutil.rmtree(folder, ignore_errors=True)
