"""Builds OS trees for the runtime `nspawn`: Debian, made by mmdebstrap. Used by `hive image build`."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from hive.errors import AlreadyDone, HiveError, Unavailable
from hive.runtimes import os_tree

PACKAGES: Final = ("systemd", "systemd-sysv", "dbus", "python3", "git", "ca-certificates")
"""An init, and what every agent may rely on."""
OTHER_SUITE: Final = "stable"
"""What to build where the host is not Debian."""
INSTALL: Final = "Install it with `apt-get install mmdebstrap`."
LINES_KEPT = 20
MASKED: Final = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "systemd-logind.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
)
"""Units that serve nobody in a container whose root is read-only and has no terminal."""
JOURNAL: Final = "[Journal]\nStorage=volatile\nRuntimeMaxUse=16M\n"
STEPS: Final = (
    "running apt-get update",
    "downloading packages",
    "extracting",
    "installing essential",
    "installing remaining",
    "cleaning",
    "success",
)
"""What mmdebstrap reports on its way, in order."""


class ImageFailed(HiveError):
    """The tree could not be built. The text is the end of what mmdebstrap printed."""

    code = "image_failed"


def suite_of_host() -> str:
    """The host's Debian release, so that a Python of the host's /usr runs inside too."""
    facts = {}
    for path in (Path("/etc/os-release"), Path("/usr/lib/os-release")):
        if path.exists():
            facts = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
            break
    codename = facts.get("VERSION_CODENAME", "").strip('"')
    return codename if facts.get("ID") == "debian" and codename else OTHER_SUITE


def build(
    folder: Path,
    *,
    suite: str | None = None,
    mirror: str | None = None,
    include: Sequence[str] = (),
    tell: Callable[[int], None] = lambda _: None,
) -> Path:
    """Build a tree in a new folder. `tell` hears how many of STEPS are done. The folder appears complete or not at all.

    Raises:
        AlreadyDone: the folder exists. Unavailable: a program is missing. ImageFailed: mmdebstrap failed.
    """
    folder = folder.absolute()
    program = shutil.which("mmdebstrap")
    if program is None:
        raise Unavailable(f"mmdebstrap is not installed. {INSTALL}")
    if (why := os_tree.host_lacks("nspawn")) is not None:
        raise Unavailable(why)
    if os.path.lexists(folder):
        raise AlreadyDone(f"{folder} exists; remove it first, or name a new folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as unfinished:
        tree = Path(unfinished) / "tree"
        command = [program, "--variant=minbase", "--mode=root", f"--include={','.join((*PACKAGES, *include))}"]
        _run([*command, suite or suite_of_host(), str(tree), *([mirror] if mirror else [])], tell)
        tell(len(STEPS) - 1)
        _adapt(tree)
        if (why := os_tree.works(tree)) is not None:
            raise ImageFailed(f"hive's Python does not run in the new tree: {why}")
        tree.rename(folder)
    tell(len(STEPS))
    return folder


def _run(command: list[str], tell: Callable[[int], None]) -> None:
    printed: list[str] = []
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            printed = [*printed, line.strip()][-LINES_KEPT:]
            for number, step in enumerate(STEPS):
                if step in line:
                    tell(number)
    if process.returncode != 0:
        raise ImageFailed(f"mmdebstrap failed with exit code {process.returncode}: {' '.join(printed)[-2000:]}")


def _adapt(tree: Path) -> None:
    """Make the tree one that many containers share: no identity of its own, no services for a terminal."""
    units = tree / "etc/systemd/system"
    for unit in MASKED:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    (units / "default.target").unlink(missing_ok=True)
    (units / "default.target").symlink_to("/usr/lib/systemd/system/multi-user.target")
    journal = tree / "etc/systemd/journald.conf.d"
    journal.mkdir(exist_ok=True)
    (journal / "hive.conf").write_text(JOURNAL)
    (tree / "etc/machine-id").write_text("")
    for name in ("etc/resolv.conf", "etc/hostname"):
        (tree / name).unlink(missing_ok=True)
        (tree / name).write_text("")
