"""The systemd unit of the daemon: its text, and how it is installed, asked about and removed."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

from hive import settings
from hive.errors import NotFound, Unavailable
from hive.paths import Paths

UNIT_NAME: Final = "hive.service"
SYSTEM_UNITS: Final = Path("/etc/systemd/system")
SYSTEM_USERS: Final = Path("/etc/sysusers.d/hive.conf")
USER_TITLE: Final = "hive helper process"
SYSTEMCTL_MAX_S: Final = 180.0
"""A start waits for the daemon's READY, which includes reading a long log."""
START_MAX_S: Final = 120
STOP_MAX_S: Final = 60
OPEN_FILES: Final = 1_048_576
SHOWN: Final = ("LoadState", "UnitFileState", "ActiveState", "SubState", "MainPID", "NRestarts")

_UNIT = """\
[Unit]
Description=hive, a daemon that runs a swarm of Claude Code agents
{after}
[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
# Agents outlive the daemon: a stop or an upgrade ends the daemon alone, and the next one finds its agents again.
KillMode=process
SendSIGKILL=yes
Restart=on-failure
RestartSec=2s
TimeoutStartSec={start_s}s
TimeoutStopSec={stop_s}s
# The daemon makes a control group for each agent.
Delegate=yes
LimitNOFILE={files}
UMask=0022
{hardening}
[Install]
WantedBy={target}
"""

_SYSTEM_HARDENING = """\
# Hardened as far as containers allow: the daemon creates namespaces, mounts and control groups, and it needs the
# capabilities for that. Every agent loses them before its first instruction.
NoNewPrivileges=yes
ProtectSystem=full
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectClock=yes
RestrictRealtime=yes
LockPersonality=yes
SystemCallArchitectures=native
"""

_USER_HARDENING = """\
# A user's manager cannot restrict more: its filters would forbid the user namespaces that agents' walls are made of.
"""


class Service:
    """hive as a unit of the system's manager, or of the manager of the user who calls."""

    def __init__(self, paths: Paths, *, user: bool):
        self._paths = paths
        self._user = user
        self.unit = _user_units() / UNIT_NAME if user else SYSTEM_UNITS / UNIT_NAME

    def users(self) -> dict[str, int]:
        """The system users of the daemon's helper processes, by name; none for a user's service.

        Raises:
            BadRequest: hive.toml is wrong.
        """
        if self._user:
            return {}
        now = settings.load(self._paths.settings)
        return {"hive-dashboard": now.dashboard.uid, "hive-broker": now.broker.uid}

    def text(self) -> str:
        """The unit file."""
        folders = ["--state", str(self._paths.state), "--run", str(self._paths.run)]
        command = [sys.executable, "-I", "-m", "hive", "up", *folders]
        return _UNIT.format(
            after="" if self._user else "Wants=network-online.target\nAfter=network-online.target local-fs.target\n",
            command=" ".join(_quoted(word) for word in command),
            start_s=START_MAX_S,
            stop_s=STOP_MAX_S,
            files=OPEN_FILES,
            hardening=_USER_HARDENING if self._user else _SYSTEM_HARDENING,
            target="default.target" if self._user else "multi-user.target",
        )

    def install(self) -> list[Path]:
        """Write the unit, start it now and at every boot; the files written.

        Raises:
            Unavailable: systemd is missing, or refused the unit; nothing stays installed.
        """
        _refuse_without_systemd()
        if not self._user and os.geteuid() != 0:
            raise Unavailable("Only root installs a system service; use sudo, or `hive service install --user`.")
        for folder in (self._paths.state, self._paths.run, self.unit.parent):
            folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        files = {self.unit: self.text()}
        if users := self.users():
            files[SYSTEM_USERS] = "".join(f'u {name} {uid} "{USER_TITLE}"\n' for name, uid in users.items())
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        try:
            if users:
                _run("systemd-sysusers", str(SYSTEM_USERS))
            self._systemctl("daemon-reload")
            self._systemctl("enable", UNIT_NAME)
            self._systemctl("restart", UNIT_NAME)
        except Unavailable:
            self.uninstall()
            raise
        return list(files)

    def uninstall(self) -> list[Path]:
        """Stop and disable the unit and remove what was written; the files removed."""
        _refuse_without_systemd()
        for words in (("disable", "--now", UNIT_NAME), ("reset-failed", UNIT_NAME)):
            self._systemctl(*words, must_succeed=False)
        removed = [path for path in (self.unit, *([] if self._user else [SYSTEM_USERS])) if path.exists()]
        for path in removed:
            path.unlink()
        self._systemctl("daemon-reload")
        for name in self.users():
            _run("userdel", name, must_succeed=False)
        if self._paths.run.is_dir() and not any(self._paths.run.iterdir()):
            self._paths.run.rmdir()
        return removed

    def refuse_absent(self) -> None:
        """Raises NotFound: there is no such unit."""
        if not self.unit.exists():
            other = "" if self._user else " Was it installed with --user?"
            raise NotFound(f"{self.unit} does not exist; the service is not installed.{other}")

    def status(self) -> dict[str, object]:
        """What systemd says of the unit, with the unit's path.

        Raises:
            NotFound: it is not installed. Unavailable: systemd does not answer.
        """
        self.refuse_absent()
        shown = self._systemctl("show", "--property", ",".join(SHOWN), UNIT_NAME)
        found = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        return {
            "unit": str(self.unit),
            "enabled": found.get("UnitFileState", ""),
            "active": found.get("ActiveState", ""),
            "state": found.get("SubState", ""),
            "pid": int(found.get("MainPID") or 0),
            "restarts": int(found.get("NRestarts") or 0),
        }

    def keep_after_logout(self) -> None:
        """Let a user's service start at boot and go on after the user logs out. Nothing to do for a system service.

        Raises:
            Unavailable: the host does not allow it; the text says what to run.
        """
        if not self._user:
            return
        try:
            _run("loginctl", "enable-linger")
        except Unavailable as error:
            raise Unavailable(
                f"{error} The service ends when you log out; `sudo loginctl enable-linger $USER` keeps it."
            ) from error

    def _systemctl(self, *words: str, must_succeed: bool = True) -> str:
        scope = ["--user"] if self._user else []
        try:
            return _run("systemctl", *scope, *words, must_succeed=must_succeed)
        except Unavailable as error:
            shows = " ".join(["journalctl", *scope, "-u", UNIT_NAME])
            raise Unavailable(f"{error} `{shows}` shows the daemon's output.") from error


def notify_ready() -> None:
    """Tell systemd, if it started this process, that it is ready."""
    if (address := os.environ.get("NOTIFY_SOCKET")) is not None:
        name = "\0" + address[1:] if address.startswith("@") else address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, contextlib.suppress(OSError):
            notify.sendto(b"READY=1", name)


def _run(*command: str, must_succeed: bool = True) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SYSTEMCTL_MAX_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        if not must_succeed:
            return ""
        raise Unavailable(f"`{' '.join(command)}` did not run: {error}.") from error
    if done.returncode != 0 and must_succeed:
        why = " ".join(done.stderr.split()).rstrip(".") or f"exit code {done.returncode}"
        raise Unavailable(f"`{' '.join(command)}` failed: {why}.")
    return done.stdout


def _refuse_without_systemd() -> None:
    if shutil.which("systemctl") is None:
        raise Unavailable("This host has no systemd; run `hive up` under the supervisor that it has.")


def _user_units() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def _quoted(word: str | Path) -> str:
    """A word as systemd reads it: specifiers and variables are text, white space stays within the word."""
    text = str(word).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if any(char in text for char in " \t'\"\\") else text
