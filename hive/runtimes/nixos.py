"""The runtime `nixos`: boots the NixOS system that an agent's configuration was built to, from the store.

The builder leaves a link to the system in the generation. The root is a tmpfs; the store is read-only.
"""

import shutil
import sys
from pathlib import Path
from typing import Final

from hive.errors import Unavailable
from hive.runtimes import os_tree
from hive.runtimes.os_tree import BootedRuntime, Tree
from hive.runtimes.protocol import Container

SYSTEM: Final = "nixos-system"
"""In a generation: a link to the system in the store."""
STORE: Final = Path("/nix/store")
PROGRAMS: Final = ("/run/wrappers/bin", "/run/current-system/sw/bin")
LIBRARIES: Final = ("/usr/lib", "/usr/lib32", "/usr/lib64")
LINKS: Final = ("/lib", "/lib32", "/lib64")
SKELETON: Final = ("/etc", "/nix/store", "/usr", "/var")
INSTALL_NIX: Final = "Install it with `apt-get install nix-bin` (or your system's package manager)."


class NixosRuntime(BootedRuntime):
    """Each agent boots its own system. `auto` never takes it: the configurations must be made for it."""

    kind = "nixos"

    def unavailable_reason(self) -> str | None:
        if (why := os_tree.host_lacks(self.kind)) is not None:
            return why
        return None if shutil.which("nix") else f"nix is not installed. {INSTALL_NIX}"

    def tree(self, container: Container) -> Tree:
        link = container.config / SYSTEM
        if not link.is_symlink():
            raise Unavailable(f"The configuration of {container.name} has no NixOS system. {_rebuild(container)}")
        system = link.resolve()
        if not (system / "init").exists():
            raise Unavailable(f"The system {system} is not in the store any more. {_rebuild(container)}")
        store = system.parent
        return Tree(
            init=str(system / "init"),
            shared=tuple({store: str(store), **_host_libraries()}.items()),
            links=_library_links(),
            skeleton=SKELETON,
            programs=PROGRAMS,
            shell=f"{PROGRAMS[1]}/bash",
        )


def _rebuild(container: Container) -> str:
    return f"Build it with `hive rebuild {container.name}`."


def _host_libraries() -> dict[Path, str]:
    """NixOS has no libraries in /usr. A Python of this host that is not from the store needs the host's."""
    if Path(sys.executable).resolve().is_relative_to(STORE):
        return {}
    return {Path(path): path for path in LIBRARIES if Path(path).is_dir() and not Path(path).is_symlink()}


def _library_links() -> tuple[tuple[str, str], ...]:
    if not _host_libraries():
        return ()
    return tuple((path, str(Path(path).readlink())) for path in LINKS if Path(path).is_symlink())
