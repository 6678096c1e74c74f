"""What `nspawn` and `nixos` share: a container that boots an operating system, with the agent's program as a unit."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final, TypedDict

import msgspec

from hive.errors import Unavailable
from hive.runtimes import bubblewrap, cgroup, installation, launch, machine, network, seccomp
from hive.runtimes.protocol import Container, Exit, Running, Status
from hive.runtimes.record import Record

AGENT_ID: Final = 1000
"""The agent's uid and gid inside; the host's id is this many above the first id of the container's range."""
ROOT_BYTES = 2 * 1024**3
"""Size of the container's writable root, and of /tmp; both count as the agent's memory."""
CONTROL: Final = "/run/hive-control"
"""Only the container's root may enter it."""
UNITS: Final = "/run/hive-units"
UNIT: Final = "hive-agent.service"
TARGET: Final = "multi-user.target"
PYTHON = os.path.normpath(sys.executable)
LAUNCHER = Path(__file__).with_name("launcher.py")
INSTALL = "Install it with `apt-get install systemd-container` (or your system's package manager)."
VARIABLES: Final = {
    "PATH": launch.PATH,
    "LC_ALL": "C.UTF-8",
    "SYSTEMD_NSPAWN_LOCK": "0",
    "SYSTEMD_NSPAWN_TMPFS_TMP": "0",
}
"""The environment of systemd-nspawn: no lock on the shared tree, and no /tmp beside ours."""
NAME_MAX = 64
"""Longest name of a machine."""
HOSTS = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n"


class Machine(TypedDict):
    """What the shim needs to boot a tree; see `machine`."""

    nspawn: str
    arguments: list[str]
    variables: dict[str, str]
    tree: str
    """The shared tree, mounted read-only with its ids shifted; empty: the root is empty."""
    shared: list[tuple[str, str]]
    """Further folders, mounted with their ids shifted: name below the mount point and host path."""
    links: list[tuple[str, str]]
    first_id: int
    """The host's id of the container's root."""
    root_bytes: int
    folders: list[str]
    """Folders made on top of the tree."""
    passable: list[str]
    """Folders that the launcher lets the agent pass, such as /root."""
    files: list[tuple[str, bytes]]
    """Files made on top of the tree."""
    units: list[tuple[str, bytes, str]]
    """Unit files: name, content, and the target that wants it."""
    idmapped: list[tuple[str, str, bool, str]]
    mount_point: str
    leftover: str
    """A folder that systemd-nspawn may leave behind."""
    uid: int
    """The host's id of the agent."""
    program_uid: int
    seccomp: bytes | None
    port: int
    """See `launch.Sandbox`."""


class Tree(msgspec.Struct, frozen=True, kw_only=True):
    """A system to boot."""

    root: Path | None = None
    """The shared tree; None: an empty root, which the system fills."""
    init: str | None = None
    """The program to run as process 1; None: the tree's own."""
    shared: tuple[tuple[Path, str], ...] = ()
    """Further folders of the host, read-only: host path and path inside."""
    links: tuple[tuple[str, str], ...] = ()
    """Symbolic links in an empty root: path and target."""
    skeleton: tuple[str, ...] = ()
    """Folders in an empty root."""
    programs: tuple[str, ...] = ()
    """Folders that go before the agent's PATH."""
    shell: str | None = None
    """The agent's shell, if it is not the host's."""


class BootedRuntime:
    """Base of the runtimes that boot a tree. Subclasses say which tree, and what this host lacks."""

    kind = ""
    ids_per_agent = machine.IDS

    def host_uid(self, first: int, slot: int) -> int | None:
        return first + slot * machine.IDS + AGENT_ID

    def tree(self, container: Container) -> Tree:
        """The tree of this agent. Raises Unavailable."""
        raise NotImplementedError

    def start(self, container: Container) -> Running:
        tree = self.tree(container)
        program = shutil.which("systemd-nspawn")
        if program is None:
            raise Unavailable(f"systemd-nspawn is not installed. {INSTALL}")
        if os.geteuid() != 0 or not container.uid:
            raise Unavailable(
                f"Agent {container.name} has no user ids of its own: {self.kind} needs hive to run as root."
            )
        folders = bubblewrap.folders_of(container)
        bubblewrap.check_folders(container, folders)
        container.record.mkdir(mode=0o700, parents=True, exist_ok=True)
        container.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        bubblewrap.give_state(container, container.uid)
        sandbox: Machine = {
            "nspawn": program,
            "arguments": _arguments(container, tree, [inside for inside, *_ in folders]),
            "variables": VARIABLES,
            "tree": str(tree.root.resolve()) if tree.root else "",
            "shared": [(f"shared-{index}", str(host)) for index, (host, _) in enumerate(_shared(tree))],
            "links": list(tree.links),
            "first_id": container.uid - AGENT_ID,
            "root_bytes": ROOT_BYTES,
            "folders": ["/work", *tree.skeleton],
            "passable": _above([inside for inside, *_ in folders]),
            "files": _etc(container, tree.root) if tree.root else [("/etc/os-release", b"ID=nixos\n")],
            "units": [(UNIT, _unit(container).encode(), TARGET)],
            "idmapped": [(str(index), *entry[1:]) for index, entry in enumerate(folders)],
            "mount_point": str(container.record.resolve()),
            "leftover": f"/run/systemd/nspawn/propagate/{machine_name(container)}",
            "uid": container.uid,
            "program_uid": AGENT_ID,
            "seccomp": seccomp.program(),
            "port": network.PORT if container.network == "own" else 0,
        }
        return launch.start(
            container,
            environment=_environment(container, tree),
            folder="/state",
            sandbox=sandbox,
            more_groups=cgroup.system_plan(launch.group_name(container)),
        )

    def stop(self, record: Path, *, grace_s: float) -> Exit | None:
        return Record(record).stop(grace_s)

    def kill(self, record: Path) -> Exit | None:
        return Record(record).kill()

    def status(self, record: Path) -> Status:
        return Record(record).status()

    def output(self, record: Path, *, lines: int) -> list[str]:
        return Record(record).output(lines)


def host_lacks(kind: str) -> str | None:
    """What every booted runtime needs of this host, with the fix; None if it is there."""
    if os.geteuid() != 0:
        return f"The runtime {kind} needs hive to run as root."
    if shutil.which("systemd-nspawn") is None:
        return f"systemd-nspawn is not installed. {INSTALL}"
    return None


def tree_lacks(root: Path) -> str | None:
    """Why a tree cannot be shared by containers, with the fix; None if it can."""
    try:
        mappable = bubblewrap.maps_owners(root)
    except OSError as error:
        return f"{error.strerror or error}."
    if not mappable:
        return (
            f"The file system of {root} has no id-mapped mounts; move it to ext4, xfs or btrfs on Linux 5.12 or later."
        )
    return None


def interpreter_lacks(root: Path) -> str | None:
    """Whether hive's Python runs inside: one of the host's /usr must be in the tree too."""
    python = Path(sys.executable).resolve()
    if python.is_relative_to(installation.SYSTEM) and not (root / python.relative_to("/")).exists():
        return f"{root} has no {python}, which runs hive here; build the image from the host's release."
    return None


def works(root: Path) -> str | None:
    """Run hive's Python inside the tree, without booting it. What it lacks; None if it runs."""
    binds = [
        f"--bind-ro={_escaped(str(host))}:{_escaped(str(inside))}" for inside, host in installation.folders().items()
    ]
    command = ["systemd-nspawn", "--quiet", "--pipe", "--volatile=overlay", "--register=no", "--keep-unit"]
    command += [
        "--private-network",
        f"--directory={root}",
        *binds,
        PYTHON,
        "-c",
        "import ssl, sqlite3, msgspec",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=machine.BOOT_S, check=False)
    return None if done.returncode == 0 else " ".join(done.stderr.split())[-500:]


def _arguments(container: Container, tree: Tree, inside: list[str]) -> list[str]:
    place, uid = container.record.resolve(), container.uid or 0
    # A tree has a file of ours; a system without a tree takes the host's only with the host's network.
    resolv = "off" if tree.root or container.network == "own" else "replace-host"
    arguments = ["--quiet", f"--directory={place}/{machine.ROOT}", f"--machine={machine_name(container)}"]
    arguments += [f"--hostname={container.name}", f"--private-users={uid - AGENT_ID}:{machine.IDS}"]
    arguments += ["--private-users-ownership=off", "--register=no", "--keep-unit", "--settings=no"]
    arguments += ["--link-journal=no", f"--resolv-conf={resolv}", "--timezone=off", "--console=read-only"]
    arguments += [f"--uuid={_machine_id(container)}", f"--tmpfs=/tmp:mode=1777,size={ROOT_BYTES}"]
    arguments += ["--private-network"] if container.network == "own" else []
    # The trailing colon adds systemd's own folders.
    arguments += [f"--bind-ro={_escaped(f'{place}/{machine.UNITS}')}:{UNITS}", f"--setenv=SYSTEMD_UNIT_PATH={UNITS}:"]
    arguments += [f"--bind={_escaped(f'{place}/{machine.CONTROL}')}:{CONTROL}"]
    folders = bubblewrap.folders_of(container)
    for index, (path, _, read_only, _) in enumerate(folders):
        assert path == inside[index]
        arguments += [f"--bind{'-ro' if read_only else ''}={_escaped(f'{place}/{index}')}:{_escaped(path)}"]
    for index, (_, path) in enumerate(_shared(tree)):
        arguments.append(f"--bind-ro={_escaped(f'{place}/shared-{index}')}:{_escaped(path)}")
    if tree.init is None:
        return [*arguments, "--boot", "--", "systemd.show_status=0"]
    return [*arguments, "--", tree.init, "systemd.show_status=0"]


def _shared(tree: Tree) -> list[tuple[Path, str]]:
    """The tree's own, and the store where there is one: a configuration's packages lie there."""
    store = Path("/nix/store")
    return sorted({**({store: str(store)} if store.is_dir() else {}), **dict(tree.shared)}.items())


def _environment(container: Container, tree: Tree) -> dict[str, str]:
    environment = bubblewrap.environment_of(container)
    environment["PATH"] = ":".join((*tree.programs, environment["PATH"]))
    return environment if tree.shell is None else {**environment, "SHELL": tree.shell}


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:")


def machine_name(container: Container) -> str:
    """Short, and unique among the hives of a host."""
    return f"h-{launch.unique_name(container)}"[:NAME_MAX].replace("_", "-")


def _machine_id(container: Container) -> str:
    return hashlib.sha256(bytes(container.record.resolve())).hexdigest()[:32]


def _above(inside: list[str]) -> list[str]:
    """Every folder above a mount, parents first."""
    return sorted({str(parent) for path in inside for parent in Path(path).parents} - {"/"})


def _etc(container: Container, root: Path) -> list[tuple[str, bytes]]:
    """Users, hosts and the host name of a tree that has none of its own."""
    shell = "/bin/bash" if os.path.lexists(root / "usr/bin/bash") else "/bin/sh"
    agent = f"agent:x:{AGENT_ID}:{AGENT_ID}:{container.name}:/state:{shell}"
    return [
        ("/etc/passwd", _with_agent(root / "etc/passwd", agent)),
        ("/etc/group", _with_agent(root / "etc/group", f"agent:x:{AGENT_ID}:")),
        ("/etc/hosts", HOSTS.encode()),
        ("/etc/hostname", f"{container.name}\n".encode()),
        ("/etc/resolv.conf", b"" if container.network == "own" else Path("/etc/resolv.conf").read_bytes()),
    ]


def _with_agent(path: Path, line: str) -> bytes:
    """The tree's own users, without any that has the agent's name or id."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        lines = ["root:x:0:0:root:/root:/bin/sh"]
    kept = [one for one in lines if one.split(":")[0] != "agent" and one.split(":")[2:3] != [str(AGENT_ID)]]
    return "".join(f"{one}\n" for one in (*kept, line)).encode()


def _unit(container: Container) -> str:
    command = [PYTHON, "-I", "-S", str(LAUNCHER), f"{CONTROL}/{machine.SOCKET}"]
    return f"""\
[Unit]
Description=hive agent {container.name}

[Service]
ExecStart={" ".join(_quoted(word) for word in command)}
KillSignal=SIGKILL
OOMPolicy=continue
TasksMax=infinity
LimitNOFILE=524288
StandardOutput=null
StandardError=journal
"""


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'
