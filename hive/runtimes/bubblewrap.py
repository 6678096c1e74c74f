"""The default runtime: each agent runs under bubblewrap. Under root every agent has its own unprivileged host uid.

As root there is no user namespace: bubblewrap sets up the mounts as root, then our init switches to the agent's uid and
drops every capability. (A uid mapped to the host's 0 could read a root-only file in a mount.) As an ordinary user
bubblewrap creates a user namespace, and the agent runs as that user.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from hive.errors import Unavailable
from hive.runtimes import idmap, installation, launch, network, ownership, seccomp
from hive.runtimes.protocol import Container, Exit, Limits, Running, Status
from hive.runtimes.record import Record

TMP_MAX_BYTES = 2 * 1024**3
"""Size of /tmp and of /dev/shm, each, unless half of the agent's memory is less; both count as its memory."""
PROBE_S = 10.0
INIT = Path(__file__).with_name("init.py")
SYSTEM_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
SYSTEM_FOLDERS = ("/usr", "/nix/store")
ETC = (
    "alternatives",
    "ca-certificates",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "pki/ca-trust/extracted",
    "pki/tls/certs",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "static",
)
"""World-readable parts of the host's /etc that programs need."""
ETC_NETWORK = ("hosts", "resolv.conf")
"""Only on the host's network: the broker resolves names for the others."""
BEFORE_DROP = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_DAC_OVERRIDE")
"""What init needs to read its own file and to switch to the agent's uid; it drops them all."""
NAMESPACES = ("--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try")
UNSHARE_NETWORK = "--unshare-net"
"""Leaves `lo` alone, and bubblewrap brings it up."""
INSTALL = "Install it with `apt-get install bubblewrap` (or your system's package manager)."


class BubblewrapRuntime:
    """Isolation by namespaces, the network's included: the forwarder to the broker is the only way out."""

    kind = "bubblewrap"
    ids_per_agent = 1

    def host_uid(self, first: int, slot: int) -> int | None:
        return first + slot if os.geteuid() == 0 else None

    def unavailable_reason(self) -> str | None:
        program = shutil.which("bwrap")
        if program is None:
            return f"bubblewrap is not installed. {INSTALL}"
        command = [
            program,
            *_unsharing(),
            UNSHARE_NETWORK,
            "--ro-bind",
            "/",
            "/",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "--",
            "true",
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"bubblewrap does not run here ({error}). {INSTALL}"
        if done.returncode == 0:
            return None
        return f"bubblewrap cannot create a sandbox here ({done.stderr.strip()}). {_namespace_fix()}"

    def start(self, container: Container) -> Running:
        program = shutil.which("bwrap")
        if program is None:
            raise Unavailable(f"bubblewrap is not installed. {INSTALL}")
        root = os.geteuid() == 0
        if root and not container.uid:
            raise Unavailable(f"Agent {container.name} has no uid of its own, and a sandbox does not contain root.")
        folders = folders_of(container)
        check_folders(container, folders)
        container.record.mkdir(mode=0o700, parents=True, exist_ok=True)
        container.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        if root and container.uid:
            give_state(container, container.uid)
        sandbox: launch.Sandbox = {
            "bwrap": program,
            "arguments": [*_arguments(container), *_binds(container, folders, idmapped=root)],
            "files": _files(container),
            "seccomp": seccomp.program(),
            "passable": [],
            "last": ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"],
            "idmapped": [(str(index), *entry[1:]) for index, entry in enumerate(folders)] if root else [],
            "mount_point": str(container.record.resolve()),
            "uid": container.uid if root else None,
            "program_uid": container.uid if root else None,
            "init": [sys.executable, "-I", "-S", str(INIT)],
            "port": network.PORT if container.network == "own" else 0,
        }
        return launch.start(container, environment=environment_of(container), folder="/state", sandbox=sandbox)

    def stop(self, record: Path, *, grace_s: float) -> Exit | None:
        return Record(record).stop(grace_s)

    def kill(self, record: Path) -> Exit | None:
        return Record(record).kill()

    def status(self, record: Path) -> Status:
        return Record(record).status()

    def output(self, record: Path, *, lines: int) -> list[str]:
        return Record(record).output(lines)


_Folder = tuple[str, str, bool, str]
"""Path inside, real host path, read-only, and `idmap`'s fallback where ids cannot be mapped."""


def folders_of(container: Container) -> list[_Folder]:
    """The agent's folders and the installation, parents before children."""
    folders: list[_Folder] = [
        ("/state", str(container.state.resolve()), False, "give"),
        ("/config", str(container.config.resolve()), True, "share"),
        ("/run/hive", str(container.socket_folder.resolve()), True, "share"),
    ]
    folders += [
        (bind.inside, str(bind.host_path.resolve()), bind.read_only, "share" if bind.read_only else "give")
        for bind in container.binds
    ]
    # Not resolved: mounts are recorded by their real path, so a link there now is an attack.
    folders += [
        (f"/work/{mount.folder}", str(mount.host_path), mount.read_only, "refuse") for mount in container.mounts
    ]
    folders += [(str(inside), str(host), True, "plain") for inside, host in installation.folders().items()]
    return sorted(folders)


def check_folders(container: Container, folders: list[_Folder]) -> None:
    """Refuse mounts that would give the agent access to the hive itself.

    Raises:
        Unavailable: a folder is missing, is a link, or contains the hive's own files.
    """
    own = {path.resolve() for path in (container.state, container.config, container.socket_folder)}
    own |= {bind.host_path.resolve() for bind in container.binds}
    protected = [container.record.resolve(), container.state.resolve(), container.socket_folder.resolve()]
    for inside, host, *_ in folders:
        path = Path(host)
        if path in own:
            continue
        if not path.is_dir():
            raise Unavailable(f"{host} is not a folder; agent {container.name} needs it at {inside}.")
        if path.resolve() != path:
            raise Unavailable(f"{host} contains a link to {path.resolve()}; mount that path instead.")
        if any(folder.is_relative_to(path) for folder in protected):
            raise Unavailable(
                f"{host} would give agent {container.name} access to the hive's own files; mount a folder without them."
            )
    for mount in container.mounts:
        if mount.folder in ("", ".", "..") or "/" in mount.folder:
            raise Unavailable(f"A mount's folder must be one name, not {mount.folder!r}.")
        place = Path("/work", mount.folder)
        for installed in installation.folders():
            if installed.is_relative_to(place):
                raise Unavailable(f"hive is installed at {installed}; mount {mount.host_path} under another name.")


def give_state(container: Container, uid: int) -> None:
    """Change the owner of state to the agent, including files of an earlier uid or of the daemon."""
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
    """The namespaces and the read-only system."""
    arguments = ["--die-with-parent", "--new-session", "--as-pid-1", *_unsharing(), "--hostname", container.name]
    arguments += [UNSHARE_NETWORK] if container.network == "own" else []
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
    for name in ETC if container.network == "own" else (*ETC, *ETC_NETWORK):
        arguments += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    arguments += ["--proc", "/proc", "--dev", "/dev"]
    for folder in ("/tmp", "/dev/shm"):
        arguments += ["--perms", "1777", "--size", str(tmp_bytes(container.limits)), "--tmpfs", folder]
    return [*arguments, "--perms", "0755", "--dir", "/work"]


def tmp_bytes(limits: Limits) -> int:
    """The size of /tmp; also of /dev/shm."""
    return TMP_MAX_BYTES if limits.memory_bytes is None else min(TMP_MAX_BYTES, limits.memory_bytes // 2)


def _binds(container: Container, folders: list[_Folder], *, idmapped: bool) -> list[str]:
    arguments: list[str] = []
    # Bubblewrap would create the parents of a private folder as private to root.
    above = {str(parent) for inside, *_ in folders for parent in Path(inside).parents}
    for folder in sorted(above - {"/", *SYSTEM_FOLDERS}):
        if not any(Path(folder).is_relative_to(inside) for inside, *_ in folders):
            arguments += ["--perms", "0755", "--dir", folder]
    for index, (inside, host, read_only, _) in enumerate(folders):
        source = f"{container.record.resolve()}/{index}" if idmapped else host
        arguments += ["--ro-bind" if read_only else "--bind", source, inside]
    return arguments


def _files(container: Container) -> list[tuple[str, bytes]]:
    """The generated files of /etc."""
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
        *([("/etc/hosts", _lines(["127.0.0.1 localhost", "::1 localhost"]))] if container.network == "own" else []),
    ]


def _lines(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _shell() -> str:
    return "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh"


def environment_of(container: Container) -> dict[str, str]:
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
        **(network.proxy_environment() if container.network == "own" else {}),
        **container.environment,
        "HIVE_AGENT_SOCKET": "/run/hive/hive.sock",
        "HIVE_AGENT_STATE": "/state",
        "HIVE_AGENT_CONFIG": "/config",
    }


def _namespace_fix() -> str:
    """What to change on this host, according to the kernel's settings."""
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
    return (
        "The kernel must allow namespaces. If hive runs in a container, give it more rights, or run hive on the host."
    )


def maps_owners(folder: Path) -> bool:
    """Whether this file system supports id-mapped mounts. Root only."""
    fd = ownership.open_folder(str(folder.resolve()))
    try:
        return idmap.can_map(fd)
    finally:
        os.close(fd)
