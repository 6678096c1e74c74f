"""The folders of the installation: the interpreter, the environment, the hive package, the Claude Code CLI.

They may lie anywhere on the host and are mounted read-only in the container at the same paths.
"""

import os
import sys
from pathlib import Path

import hive

SYSTEM = Path("/usr")
PACKAGE_FOLDERS = frozenset({"site-packages", "dist-packages"})
LINKS = 16
"""Maximum links followed from the interpreter's name to its file."""


def folders() -> dict[Path, Path]:
    """Path inside to host path, outermost folders only; without /usr, which is always mounted."""
    found: dict[Path, Path] = {}
    roots = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.base_exec_prefix), *_interpreter_homes()]
    packages = [Path(entry) for entry in sys.path if Path(entry).name in PACKAGE_FOLDERS]
    for folder in (*roots, *packages, Path(hive.__file__).parent):
        real = folder.resolve()
        if real.is_dir():
            found[folder] = real
            found[real] = real
    wanted = {inside: host for inside, host in found.items() if not inside.is_relative_to(SYSTEM)}
    return {
        inside: host
        for inside, host in sorted(wanted.items())
        if not any(_shows(outer, wanted[outer], inside, host) for outer in wanted if outer != inside)
    }


def _shows(outer: Path, outer_host: Path, inside: Path, host: Path) -> bool:
    """Whether mounting `outer` already makes `host` visible at `inside`."""
    return inside.is_relative_to(outer) and outer_host / inside.relative_to(outer) == host


def _interpreter_homes() -> list[Path]:
    """Installations on the way from sys.executable through its links, by the names the links use."""
    real_home = Path(sys.base_prefix).resolve()
    homes = []
    path = Path(sys.executable)
    for _ in range(LINKS):
        if not path.is_symlink():
            break
        path = path.parent / path.readlink()
        home = path.parent.parent
        if home.resolve() == real_home:
            homes.append(Path(os.path.normpath(home)))
    return homes
