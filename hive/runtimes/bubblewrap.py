"""The default runtime: bubblewrap round each agent. Under root every agent is an unprivileged host uid of its own.

As root there is no user namespace: bubblewrap sets up the mounts with root's sight, then our init becomes the agent's
uid and gives up every capability. (A uid mapped to the host's 0 could read a bound root-only file.) As an ordinary user
bubblewrap makes a user namespace, and the agent is that user.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from hive.errors import Unavailable
from hive.runtimes import installation, launch, ownership, seccomp, stage
from hive.runtimes.protocol import Container, Exit, Running, Status
from hive.runtimes.record import Record

TMP_BYTES = 2 * 1024**3
"""Bound of /tmp and of /dev/shm, each; it counts as the agent's memory."""
PROBE_S = 10.0
INIT = Path(__file__).with_name("init.py")
SYSTEM_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
SYSTEM_FOLDERS = ("/usr", "/nix/store")
ETC = (
    "alternatives",
    "ca-certificates",
    "hosts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "pki/ca-trust/extracted",
    "pki/tls/certs",
    "protocols",
    "resolv.conf",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "static",
)
"""What programs need of the host's /etc and anybody may read."""
BEFORE_DROP = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_DAC_OVERRIDE")
"""What init needs to be read from a folder of the agent's and to become the agent; it gives all of it up."""
NAMESPACES = ("--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try")
INSTALL = "Install it with `apt-get install bubblewrap` (or your system's package manager)."


class BubblewrapRuntime:
    """Walls by namespaces. It shares the host's network; so nothing on loopback may trust a caller for being local."""

    kind = "bubblewrap"

    def lacks(self) -> str | None:
        program = shutil.which("bwrap")
        if program is None:
            return f"bubblewrap is not installed. {INSTALL}"
        command = [program, *_unsharing(), "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--", "true"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"bubblewrap does not run here ({error}). {INSTALL}"
        if done.returncode == 0:
            return None
        return f"bubblewrap cannot build its walls here ({done.stderr.strip()}). {_namespace_fix()}"

    def start(self, container: Container) -> Running:
        program = shutil.which("bwrap")
        if program is None:
            raise Unavailable(f"bubblewrap is not installed. {INSTALL}")
        root = os.geteuid() == 0
        if root and not container.uid:
            raise Unavailable(f"Agent {container.name} has no uid of its own, and walls do not hold root.")
        shown = _shown(container)
        _check(container, shown)
        container.record.mkdir(mode=0o700, parents=True, exist_ok=True)
        container.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        if root and container.uid:
            _give_state(container, container.uid)
        walls: launch.Walls = {
            "bwrap": program,
            "arguments": [*_arguments(container), *_binds(container, shown, staged=root)],
            "files": _files(container),
            "seccomp": seccomp.program(),
            "last": ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"],
            "stage": [(str(index), *entry[1:]) for index, entry in enumerate(shown)] if root else [],
            "stage_folder": str(container.record.resolve()),
            "uid": container.uid if root else None,
            "init": [sys.executable, "-I", "-S", str(INIT)],
        }
        return launch.start(container, environment=_environment(container), folder="/state", walls=walls)

    def stop(self, record: Path, *, grace_s: float) -> Exit | None:
        return Record(record).stop(grace_s)

    def kill(self, record: Path) -> Exit | None:
        return Record(record).kill()

    def status(self, record: Path) -> Status:
        return Record(record).status()

    def output(self, record: Path, *, lines: int) -> list[str]:
        return Record(record).output(lines)


_Shown = tuple[str, str, bool, str]
"""Path inside, real host path, read-only, and what `stage` does where ids cannot be mapped."""


def _shown(container: Container) -> list[_Shown]:
    """The agent's folders and the installation, outer paths before inner ones."""
    shown: list[_Shown] = [
        ("/state", str(container.state.resolve()), False, "give"),
        ("/config", str(container.config.resolve()), True, "share"),
        ("/run/hive", str(container.socket_folder.resolve()), True, "share"),
    ]
    shown += [
        (bind.inside, str(bind.host_path.resolve()), bind.read_only, "share" if bind.read_only else "give")
        for bind in container.binds
    ]
    # Not resolved: a mount was recorded by its real path, and a link there now is somebody's trick.
    shown += [(f"/work/{mount.folder}", str(mount.host_path), mount.read_only, "refuse") for mount in container.mounts]
    shown += [(str(inside), str(host), True, "plain") for inside, host in installation.folders().items()]
    return sorted(shown)


def _check(container: Container, shown: list[_Shown]) -> None:
    """Refuse what would open the hive itself to the agent.

    Raises:
        Unavailable: a folder is missing, is a link, or holds the hive's own files.
    """
    own = {path.resolve() for path in (container.state, container.config, container.socket_folder)}
    own |= {bind.host_path.resolve() for bind in container.binds}
    precious = [container.record.resolve(), container.state.resolve(), container.socket_folder.resolve()]
    for inside, host, *_ in shown:
        path = Path(host)
        if path in own:
            continue
        if not path.is_dir():
            raise Unavailable(f"{host} is no folder; agent {container.name} wants it at {inside}.")
        if path.resolve() != path:
            raise Unavailable(f"{host} leads through a link to {path.resolve()}; mount that path instead.")
        if any(secret.is_relative_to(path) for secret in precious):
            raise Unavailable(
                f"{host} would show agent {container.name} the hive's own files; keep state and run folder out of it."
            )
    for mount in container.mounts:
        if mount.folder in ("", ".", "..") or "/" in mount.folder:
            raise Unavailable(f"A mount's folder is one name, not {mount.folder!r}.")
        place = Path("/work", mount.folder)
        for installed in installation.folders():
            if installed.is_relative_to(place):
                raise Unavailable(f"hive is installed at {installed}; mount {mount.host_path} under another name.")


def _give_state(container: Container, uid: int) -> None:
    """Make state the agent's own, also what an earlier start under another uid or the daemon left there."""
    folder = ownership.open_folder(str(container.state.resolve()))
    try:
        ownership.give(folder, uid)
    finally:
        os.close(folder)


def _unsharing() -> list[str]:
    if os.geteuid() != 0:
        return ["--unshare-user", *NAMESPACES]
    kept = [argument for capability in BEFORE_DROP for argument in ("--cap-add", capability)]
    return [*NAMESPACES, "--cap-drop", "ALL", *kept]


def _arguments(container: Container) -> list[str]:
    """The walls themselves and the read-only system."""
    arguments = ["--die-with-parent", "--new-session", "--as-pid-1", *_unsharing(), "--hostname", container.name]
    for folder in SYSTEM_FOLDERS:
        arguments += ["--ro-bind-try", folder, folder]
    for name in SYSTEM_LINKS:
        path = Path("/", name)
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            arguments += ["--ro-bind", str(path), str(path)]
    for folder in sorted({str(parent) for name in ETC for parent in Path("/etc", name).parents} - {"/"}):
        arguments += ["--perms", "0755", "--dir", folder]
    for name in ETC:
        arguments += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    arguments += ["--proc", "/proc", "--dev", "/dev"]
    for folder in ("/tmp", "/dev/shm"):
        arguments += ["--perms", "1777", "--size", str(TMP_BYTES), "--tmpfs", folder]
    return [*arguments, "--perms", "0755", "--dir", "/work"]


def _binds(container: Container, shown: list[_Shown], *, staged: bool) -> list[str]:
    arguments: list[str] = []
    # Bubblewrap would make the folders above a private one private too, and they are root's.
    above = {str(parent) for inside, *_ in shown for parent in Path(inside).parents}
    for folder in sorted(above - {"/", *SYSTEM_FOLDERS}):
        if not any(Path(folder).is_relative_to(inside) for inside, *_ in shown):
            arguments += ["--perms", "0755", "--dir", folder]
    for index, (inside, host, read_only, _) in enumerate(shown):
        source = f"{container.record.resolve()}/{index}" if staged else host
        arguments += ["--ro-bind" if read_only else "--bind", source, inside]
    return arguments


def _files(container: Container) -> list[tuple[str, bytes]]:
    """/etc as far as it is made for the agent alone."""
    uid = container.uid if os.geteuid() == 0 else os.getuid()
    gid = container.uid if os.geteuid() == 0 else os.getgid()
    shell = _shell()
    users = [
        "root:x:0:0:root:/nonexistent:/usr/sbin/nologin",
        f"agent:x:{uid}:{gid}:{container.name}:/state:{shell}",
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin",
    ]
    groups = ["root:x:0:", f"agent:x:{gid}:", "nogroup:x:65534:"]
    return [
        ("/etc/passwd", _lines(users)),
        ("/etc/group", _lines(groups)),
        ("/etc/nsswitch.conf", _lines(["passwd: files", "group: files", "hosts: files dns"])),
        ("/etc/hostname", _lines([container.name])),
    ]


def _lines(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _shell() -> str:
    return "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh"


def _environment(container: Container) -> dict[str, str]:
    path = launch.PATH
    if not any(Path(folder, "python3").exists() for folder in path.split(":")):
        path = f"{path}:{Path(sys.executable).parent}"
    return {
        "PATH": path,
        "HOME": "/state",
        "USER": "agent",
        "LOGNAME": "agent",
        "SHELL": _shell(),
        "TERM": "dumb",
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",
        **container.environment,
        "HIVE_AGENT_SOCKET": "/run/hive/hive.sock",
        "HIVE_AGENT_STATE": "/state",
        "HIVE_AGENT_CONFIG": "/config",
    }


def _namespace_fix() -> str:
    """What to change on this host, from what the kernel says."""
    for file, wanted, fix in (
        ("/proc/sys/kernel/unprivileged_userns_clone", "1", "sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "0",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (or an AppArmor profile for bwrap)",
        ),
    ):
        try:
            value = Path(file).read_text().strip()
        except OSError:
            continue
        if value != wanted and os.geteuid() != 0:
            return f"As root: `{fix}`."
    return "The kernel must allow namespaces: give a container around hive more rights, or run it on the host."


def maps_owners(folder: Path) -> bool:
    """Whether folders of other owners on this file system can be shown to an agent as its own. As root only."""
    fd = ownership.open_folder(str(folder.resolve()))
    try:
        return stage.can_map(fd)
    finally:
        os.close(fd)
