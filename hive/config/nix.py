"""Runs nix in a sandbox with the store and the given folders only. Used by the Nix builder."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from hive.config import program
from hive.config.builders import BuildFailed
from hive.config.escaping import escaped
from hive.config.meta_flake import NIXPKGS
from hive.errors import Unavailable
from hive.paths import Paths

OUTPUT_LIMIT_BYTES = 4 * 1024 * 1024
ERROR_SHOWN_CHARACTERS = 8_000

INPUT_SCHEMES: Final = frozenset({"github", "gitlab", "sourcehut", "https", "tarball+https", "git+https"})
"""Allowed input schemes. A path could name a secret, http is unauthenticated, and a registry entry can move."""
STORE_VARIABLES: Final = ("NIX_STORE_DIR", "NIX_STATE_DIR", "NIX_LOG_DIR")
DAEMON_SOCKET: Final = Path("/nix/var/nix/daemon-socket/socket")
_HOST_PATHS: Final = (
    "/usr",
    "/run/current-system",
    "/etc/ssl",
    "/etc/pki",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/static",
)
_ROOT_FOLDERS: Final = ("bin", "lib", "lib32", "lib64", "sbin")


class NixHost(msgspec.Struct, frozen=True, kw_only=True):
    """Nix settings of the host. Agents cannot change them."""

    nixpkgs: str = NIXPKGS
    """A flake reference. A host folder is allowed, as `path:/…`."""
    input_schemes: frozenset[str] = INPUT_SCHEMES
    options: Mapping[str, str] = {}
    """Extra Nix options."""
    environment: Mapping[str, str] = {}
    """NIX_STORE_DIR and similar variables, for a separate store."""
    visible: tuple[Path, ...] = ()
    """Folders available to inputs when `input_schemes` allows `path`."""


class Nix:
    def __init__(self, paths: Paths, host: NixHost) -> None:
        self._paths = paths
        self._host = host

    def lacks(self) -> str | None:
        """What is missing on this host and how to fix it, or None."""
        for name, package in (("nix", "nix-bin"), ("bwrap", "bubblewrap"), ("git", "git")):
            if shutil.which(name) is None:
                return f"{name} is not installed. Install it with `apt-get install {package}` or your package manager."
        return None

    def run(self, arguments: list[str], binds: list[tuple[Path, bool]], time_limit_s: float) -> str:
        """Standard output of one command. `binds` are (folder, writable) pairs visible to it.

        Raises:
            BuildFailed: Nix failed; the text is its error. Unavailable: a program is missing.
        """
        lack = self.lacks()
        if lack is not None:
            raise Unavailable(lack)
        nix = str(Path(shutil.which("nix") or "nix").resolve())
        with tempfile.TemporaryDirectory(prefix="hive-nix-") as folder:
            sandbox = self._sandbox(Path(folder), binds)
            argv = [*sandbox, nix, *self._flags(), *arguments]
            limits = program.Limits(time_s=time_limit_s, output_bytes=OUTPUT_LIMIT_BYTES)
            try:
                done = program.run(argv, self._variables(), limits)
            except program.TooSlow as error:
                raise BuildFailed(f"nix {arguments[0]} took longer than {time_limit_s:g} s.") from error
            except program.TooMuchOutput as error:
                raise BuildFailed(f"nix {arguments[0]} printed more than {OUTPUT_LIMIT_BYTES} bytes.") from error
        if done.status != 0:
            said = escaped(done.stderr.strip())[-ERROR_SHOWN_CHARACTERS:]
            raise BuildFailed(f"nix {arguments[0]} failed:\n{said}")
        return done.stdout.decode()

    def _flags(self) -> list[str]:
        """Evaluation is pure and restricted. Settings in the flake are ignored."""
        allowed = [f"{prefix}{self._paths.all_applied}/" for prefix in ("file://", "git+file://")]
        schemes = [f"{scheme}:" for scheme in sorted(self._host.input_schemes)]
        options = {
            "experimental-features": "nix-command flakes",
            "accept-flake-config": "false",
            "restrict-eval": "true",
            "allowed-uris": " ".join([*allowed, *schemes, self._host.nixpkgs]),
            "allow-import-from-derivation": "false",
            "allow-unsafe-native-code-during-evaluation": "false",
            "flake-registry": "/dev/null",
            "warn-dirty": "false",
            "sandbox-fallback": "true",
            **self._host.options,
        }
        if os.geteuid() == 0 and not DAEMON_SOCKET.exists():
            options["build-users-group"] = ""
        return [word for key, value in options.items() for word in ("--option", key, value)]

    def _variables(self) -> dict[str, str]:
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": "/tmp/home",
            "USER": "hive",
            "LC_ALL": "C.UTF-8",
            "NO_COLOR": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            **self._host.environment,
        }
        if DAEMON_SOCKET.exists() and not self._host.environment:
            env["NIX_REMOTE"] = "daemon"
        return env

    def _sandbox(self, folder: Path, binds: list[tuple[Path, bool]]) -> list[str]:
        bwrap = shutil.which("bwrap") or "bwrap"
        argv = [bwrap, "--die-with-parent", "--new-session", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
        argv += ["--cap-drop", "ALL"] if os.geteuid() == 0 else ["--unshare-user"]
        for path in _HOST_PATHS:
            argv += ["--ro-bind-try", path, path]
        for name in _ROOT_FOLDERS:
            root_folder = Path("/", name)
            if root_folder.is_symlink():
                argv += ["--symlink", str(root_folder.readlink()), str(root_folder)]
            elif root_folder.is_dir():
                argv += ["--ro-bind", str(root_folder), str(root_folder)]
        # Nix looks its user up. The host's own /etc/passwd stays hidden.
        (folder / "passwd").write_text(f"hive:x:{os.geteuid()}:{os.getegid()}::/tmp/home:/bin/sh\n")
        argv += ["--ro-bind", str(folder / "passwd"), "/etc/passwd"]
        argv += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--dir", "/tmp/home"]
        argv += ["--bind-try", "/nix", "/nix", "--ro-bind", str(self._paths.all_applied), str(self._paths.all_applied)]
        own_store = {str(Path(value).parent) for key, value in self._host.environment.items() if key in STORE_VARIABLES}
        for path in sorted(own_store):
            argv += ["--bind", path, path]
        for bound in (*self._host.visible, *self._nixpkgs_folder()):
            argv += ["--ro-bind", str(bound), str(bound)]
        for bound, writable in binds:
            argv += ["--bind" if writable else "--ro-bind", str(bound), str(bound)]
        return [*argv, "--"]

    def _nixpkgs_folder(self) -> list[Path]:
        """The nixpkgs of hive.toml may be a folder; inputs of an agent may not."""
        return [Path(self._host.nixpkgs.removeprefix("path:"))] if self._host.nixpkgs.startswith("path:") else []
