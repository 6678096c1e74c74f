"""`hive doctor`: checks whether this host meets hive's requirements. Needs no daemon."""

import importlib.util
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from hive import lock
from hive.cli import screen
from hive.cli.doctor_network import network_checks
from hive.cli.screen import Column, Styled
from hive.cli.session import Noun, Session
from hive.errors import HiveError
from hive.paths import Paths
from hive.runtimes.host_checks import HostCheck, runtime_checks
from hive.settings import Settings, load

noun = Noun("Daemon")

PYTHON_OLDEST = (3, 11)
DISK_FREE_MIN_BYTES = 2 * 1024**3
"""Agents build and work in the state folder, and a full disk stops the log."""
BACKUP_AGE_MAX_S = 2 * 24 * 3600
"""An older newest backup is worth a word."""
CLI_ANSWERS_WITHIN_S = 20.0
OTHERS_MAY = stat.S_IRWXO
ESSENTIAL = frozenset({"runtime", "git", "python", "SQLite", "Claude Code", "state folder", "disk"})
"""hive needs each of these; the command exits with 1 if one is missing."""


@noun.command("doctor", example="hive doctor")
def doctor(hive: Session) -> None:
    """Check this host's requirements and print the fixes."""
    settings, problems = _settings(hive.paths)
    checks = [
        *_host(),
        *problems,
        *runtime_checks(hive.paths.state, settings),
        *network_checks(hive.paths, settings),
        *_optional(),
        *_folders(hive.paths),
        *_backup(hive.paths),
        _daemon(hive),
    ]
    if hive.as_json:
        screen.print_json(checks)
    else:
        marks = {True: Styled("ok", "green"), False: Styled("missing", "yellow")}
        cells = [
            (marks[check.good], check.name, check.says + (f"\n→ {check.fix}" if check.fix else "")) for check in checks
        ]
        screen.table((Column("", whole=True), Column("", whole=True), ""), cells)
    if any(not check.good and check.name in ESSENTIAL for check in checks):
        raise typer.Exit(1)


def _settings(paths: Paths) -> tuple[Settings, list[HostCheck]]:
    """The settings, or the defaults and what is wrong with `hive.toml`."""
    try:
        return load(paths.settings), []
    except HiveError as error:
        return Settings(), [HostCheck(name="hive.toml", good=False, says="is invalid", fix=str(error))]


def _host() -> Iterator[HostCheck]:
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= PYTHON_OLDEST
    yield HostCheck(name="python", good=good, says=version, fix=None if good else "Install Python 3.11 or newer.")
    yield _sqlite()
    yield _claude()


def _sqlite() -> HostCheck:
    import apsw

    from hive.events.sqlite import refuse_unsafe

    version = apsw.sqlite_lib_version()
    try:
        refuse_unsafe(version)
    except HiveError as error:
        return HostCheck(name="SQLite", good=False, says=version, fix=str(error))
    return HostCheck(
        name="SQLite", good=True, says=f"{version} through apsw (the system's {sqlite3.sqlite_version} is not used)"
    )


def _claude() -> HostCheck:
    """The CLI bundled with the SDK, and its version."""
    fix = "Run `make venv` to reinstall claude-agent-sdk with its bundled CLI."
    found = importlib.util.find_spec("claude_agent_sdk")
    if found is None or found.origin is None:
        return HostCheck(name="Claude Code", good=False, says="claude-agent-sdk is not installed", fix=fix)
    program = Path(found.origin).parent / "_bundled" / "claude"
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=CLI_ANSWERS_WITHIN_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return HostCheck(name="Claude Code", good=False, says=f"{program} does not run: {error}", fix=fix)
    good = done.returncode == 0
    return HostCheck(
        name="Claude Code", good=good, says=(done.stdout or done.stderr).strip(), fix=None if good else fix
    )


def _optional() -> Iterator[HostCheck]:
    uses = {
        "nix": "lets configurations add packages with a flake",
        "systemd-nspawn": "boots agents under the runtimes nspawn and nixos",
    }
    for program, use in uses.items():
        path = shutil.which(program)
        yield HostCheck(name=program, good=True, says=f"{path}: {use}" if path else f"not installed; optional ({use})")


def _folders(paths: Paths) -> Iterator[HostCheck]:
    existing = next(folder for folder in (paths.state, *paths.state.parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    enough = free >= DISK_FREE_MIN_BYTES
    says = f"{free / 1024**3:.1f} GiB free below {existing}"
    yield HostCheck(
        name="disk", good=enough, says=says, fix=None if enough else "Free disk space, or choose another --state."
    )
    yield _permissions(paths.state, existing)


def _permissions(state: Path, existing: Path) -> HostCheck:
    name = "state folder"
    if not os.access(existing, os.W_OK | os.X_OK):
        fix = f"Choose another folder with --state, or make {existing} writable for this user."
        return HostCheck(name=name, good=False, says=f"{state} cannot be written by this user", fix=fix)
    if existing != state:
        return HostCheck(name=name, good=True, says=f"`hive up` creates {state}")
    mode = stat.S_IMODE(state.stat().st_mode)
    if not mode & OTHERS_MAY:
        return HostCheck(name=name, good=True, says=f"{state}, mode {mode:04o}")
    log = state / "events.db"
    private = not log.exists() or not log.stat().st_mode & (stat.S_IRWXO | stat.S_IRWXG)
    says = f"{state}, mode {mode:04o}; the log itself is private" if private else f"{log} can be read by others"
    return HostCheck(name=name, good=private, says=says, fix=None if private else f"`chmod 600 {log}`")


def _backup(paths: Paths) -> Iterator[HostCheck]:
    """How old the newest backup is; nothing before there is a log."""
    from hive.backup.known import known_backups
    from hive.clock import SystemClock, parse_rfc3339

    if not paths.events.exists():
        return
    try:
        newest = next(iter(known_backups(paths)), None)
    except HiveError as error:
        yield HostCheck(name="backup", good=False, says="unknown", fix=str(error))
        return
    if newest is None:
        fix = "`hive backup DIR` to another disk, from cron each night."
        yield HostCheck(name="backup", good=False, says="this hive was never backed up", fix=fix)
        return
    age_s = (SystemClock().now_ms() - parse_rfc3339(newest.at)) / 1000
    says = f"{screen.duration(age_s)} old, up to event {newest.seq}, in {newest.folder}"
    good = age_s <= BACKUP_AGE_MAX_S
    yield HostCheck(name="backup", good=good, says=says, fix=None if good else f"Run `hive backup {newest.folder}`.")


def _daemon(hive: Session) -> HostCheck:
    runs = lock.is_held(hive.paths.lock)
    try:
        agents = hive.ask("list")["agents"]
    except HiveError as error:
        if runs:
            return HostCheck(
                name="daemon", good=False, says=f"running on {hive.paths.state}, but not reachable", fix=str(error)
            )
        return HostCheck(name="daemon", good=True, says=f"not running on {hive.paths.state}; start it with `hive up`")
    return HostCheck(name="daemon", good=True, says=f"running with {len(agents)} agents")
