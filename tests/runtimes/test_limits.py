"""Limits of containers: what enforces them, and which limit an exit reason names."""

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from contract import PYTHON, Lab, eventually

from hive.runtimes import cgroup, end_cause, limits, spawn
from hive.runtimes.limits import GIB, MIB, HostSize
from hive.runtimes.protocol import Exit, Limits, Running
from hive.settings import LimitSettings

CONTROLLERS = {name for _, _, offered in cgroup.hierarchies() for name in offered}
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
UID = 65502
PROCESSES = 24
MEMORY_BYTES = 1 * GIB // 8
BOMB = """
import os, sys, time
children = []
try:
    while True:
        pid = os.fork()
        if pid == 0:
            time.sleep(1000)
        children.append(pid)
except OSError as error:
    print("forks", len(children), flush=True)
    raise
"""
ALLOCATION = "held = []\nwhile True: held.append(bytearray(b'x' * 10**7))"
FILES = "import os\nopened = 0\ntry:\n while True: os.dup(0); opened += 1\nexcept OSError: print(opened)"


def host(memory_gib: float = 24, disk_gib: int = 200) -> HostSize:
    return HostSize(memory_bytes=int(memory_gib * GIB), cpus=2, processes=32768, disk_bytes=disk_gib * GIB)


@pytest.mark.parametrize(("memory_gib", "expected_mib"), [(24, 3072), (64, 8192), (4, 1024), (1, 512)])
def test_default_memory_is_an_eighth_but_at_least_1_gib(memory_gib: float, expected_mib: int):
    assert limits.defaults(LimitSettings(), host(memory_gib)).memory_bytes == expected_mib * MIB


def test_defaults_of_other_limits():
    usual = limits.defaults(LimitSettings(), host())
    assert (usual.processes, usual.cpu_percent, usual.open_files) == (1024, None, limits.OPEN_FILES)
    assert usual.disk_bytes == 20 * GIB
    assert limits.defaults(LimitSettings(), host(disk_gib=40)).disk_bytes == 10 * GIB
    assert usual.all_memory_bytes == 22.5 * GIB


def test_hive_toml_sets_default_and_maximum():
    own = LimitSettings(memory_mb=512, processes=64, cpu_percent=50, disk_mb=100)
    usual = limits.defaults(own, host())
    assert (usual.memory_bytes, usual.processes, usual.cpu_percent, usual.disk_bytes) == (512 * MIB, 64, 50, 100 * MIB)
    named = {"memory_mb": 512, "processes": 64, "cpu_percent": 50, "disk_mb": 100}
    assert named.items() <= limits.maximum(own, host()).items()
    most = {"memory_mb": 22.5 * 1024, "processes": 16384, "cpu_percent": 200, "disk_mb": 200 * 1024}
    assert most.items() <= limits.maximum(LimitSettings(), host()).items()


def bounded(lab: Lab, code: str, **values: int) -> tuple[Exit, list[str]]:
    container = lab.container(PYTHON, "-c", code, limits=Limits(**values))
    return lab.finish(container), lab.output(container)


def test_fork_bomb_ends_with_too_many_processes(lab: Lab):
    if "pids" not in CONTROLLERS and lab.runtime.kind == "process":
        pytest.skip("not enforced here")
    ended, output = bounded(lab, BOMB, processes=PROCESSES)
    assert ended.reason() == "too many processes"
    assert ended.code == 1
    forks = next(int(line.split()[1]) for line in output if line.startswith("forks"))
    assert forks < PROCESSES


def test_refused_fork_does_not_explain_success_or_kill(lab: Lab):
    if "pids" not in CONTROLLERS and lab.runtime.kind == "process":
        pytest.skip("not enforced here")
    harmless = BOMB.replace("    raise", "    pass")
    ended, _ = bounded(lab, harmless, processes=PROCESSES)
    assert ended.reason() == "exit code 0"
    container = lab.container(
        PYTHON, "-c", BOMB.replace("    raise", "    time.sleep(1000)"), limits=Limits(processes=PROCESSES)
    )
    lab.start(container)
    eventually(lambda: any(line.startswith("forks") for line in lab.output(container)), "the limit is reached")
    killed = lab.runtime.kill(container.record)
    assert killed is not None
    assert killed.reason() == "signal 9 (SIGKILL)"


def test_endless_allocation_ends_with_out_of_memory(lab: Lab):
    ended, _ = bounded(lab, ALLOCATION, memory_bytes=MEMORY_BYTES)
    assert ended.reason() == "out of memory"
    assert ended.out_of_memory is (True if "memory" in CONTROLLERS else None)


def test_tmp_is_limited(sandboxed_lab: Lab):
    fill = "data = b'x' * 2**20\nwith open('/tmp/fill', 'wb') as file:\n while True: file.write(data); file.flush()"
    ended, _ = bounded(sandboxed_lab, fill, memory_bytes=MEMORY_BYTES)
    assert ended.reason() in ("disk full", "out of memory")  # It is a tmpfs, and counts as memory.


def test_open_files_are_limited(lab: Lab):
    _, output = bounded(lab, FILES, open_files=100)
    assert int(output[0]) < 100


def test_cpu_is_shared_equally_whatever_the_number_of_threads(lab: Lab):
    if "cpu" not in CONTROLLERS:
        pytest.skip("not enforced here")
    busy = "import os, sys\nfor _ in range(int(sys.argv[1])): os.fork()\nprint('busy', flush=True)\nwhile True: pass"
    many, few = (lab.container(PYTHON, "-c", busy, forks, name=name) for name, forks in (("many", "4"), ("few", "1")))
    for container in (many, few):
        lab.start(container)
        lab.says(container, "busy")
    before = cpu_ns(lab, many), cpu_ns(lab, few)
    began = time.monotonic()
    eventually(lambda: cpu_ns(lab, few) - before[1] > 400_000_000 or time.monotonic() - began > 20, "it gets CPU time")
    used = cpu_ns(lab, many) - before[0], cpu_ns(lab, few) - before[1]
    assert used[0] < 3 * used[1], used


def cpu_ns(lab: Lab, container) -> int:
    """CPU time of all processes of a running container."""
    status = lab.runtime.status(container.record)
    assert isinstance(status, Running)
    ticks = 0
    for pid in [status.pid, *spawn.below(status.pid)]:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def test_cpu_quota_limits_an_agent_alone(lab: Lab):
    if "cpu" not in CONTROLLERS:
        pytest.skip("not enforced here")
    spin = (
        "import time\nbegan, used = time.monotonic(), time.process_time()\n"
        "while time.process_time() - used < 0.2: pass\nprint(time.monotonic() - began)"
    )
    _, output = bounded(lab, spin, cpu_percent=20)
    assert float(output[0]) > 0.5


@pytest.fixture
def small_disk(root: Path):
    """A state folder on a tmpfs of 1 MiB."""
    folder = root / "agents/coder/state"
    folder.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], check=False).returncode != 0:
        pytest.skip("mount is not permitted")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@root_only
def test_full_state_ends_with_disk_full(lab: Lab, small_disk: Path):
    fill = (
        "import os\nfile = open(os.environ['HIVE_AGENT_STATE'] + '/fill', 'wb')\nwhile True: file.write(b'x' * 65536)"
    )
    ended, _ = bounded(lab, fill)
    assert ended.reason() == "disk full"
    assert os.statvfs(small_disk).f_bavail == 0
    silent = "import os\ntry: os.mkdir(os.environ['HIVE_AGENT_STATE'] + '/more')\nexcept OSError: pass\nos._exit(1)"
    assert bounded(lab, silent)[0].reason() == "disk full"


@pytest.mark.parametrize(
    ("tail", "killed", "oom", "refused", "limit"),
    [
        (b"", True, True, False, end_cause.MEMORY),
        (b"", True, False, False, None),
        (b"", False, True, False, None),
        (b"", False, False, True, end_cause.PROCESSES),
        (b"OSError: [Errno 28] No space left on device", False, False, False, end_cause.DISK),
        (b"OSError: [Errno 122] Disk quota exceeded", False, False, False, end_cause.DISK),
        (b"MemoryError", False, False, False, None),
        (b"MemoryError", False, None, None, end_cause.MEMORY),
        (b"BlockingIOError: [Errno 11] Resource temporarily unavailable", False, None, None, end_cause.PROCESSES),
        (b"exit", False, None, None, None),
    ],
)
def test_limit_behind_an_exit(tail: bytes, killed: bool, oom: bool | None, refused: bool | None, limit: str | None):
    assert end_cause.limit_hit(tail, "/proc/self", killed=killed, oom=oom, refused=refused) == limit


def test_shim_is_limited_and_its_program_is_not(lab: Lab):
    import json

    container = lab.container("sleep", "1000")
    running = lab.start(container)
    shim = json.loads((container.record / "run.json").read_text())["shim"]

    def data_limit(pid: int) -> str:
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
        return next(line.split()[3] for line in lines if line.startswith("Max data size"))

    assert int(data_limit(shim)) <= 256 * MIB
    assert data_limit(running.pid) == "unlimited"


def test_groups_of_one_hive_share_a_parent_that_goes_with_the_last(lab: Lab):
    if not CONTROLLERS:
        pytest.skip("no control groups here")
    containers = [
        msgspec.structs.replace(lab.container("sleep", "1000", name=name), hive=f"test-{os.getpid()}")
        for name in ("one", "two")
    ]
    for container in containers:
        lab.start(container)
    parents = [Path(base, cgroup.PARENT, f"test-{os.getpid()}") for _, base, _ in cgroup.hierarchies()]
    assert all(len([one for one in parent.iterdir() if one.is_dir()]) == 2 for parent in parents)
    for container in containers:
        lab.runtime.kill(container.record)
    assert not any(parent.exists() for parent in parents)


@root_only
def test_ordinary_user_with_delegated_groups_gets_all_limits(root: Path):
    """Version 1: root gives the user a group in each hierarchy and starts hive in it."""
    found = [(base, offered) for version, base, offered in cgroup.hierarchies() if version == cgroup.V1]
    if not found:
        pytest.skip("no control groups of version 1")
    groups = [Path(base, f"delegated-{os.getpid()}") for base, _ in found]
    os.chown(root, UID, UID)
    try:
        for group in groups:
            group.mkdir()
            for path in (group, group / "cgroup.procs"):
                os.chown(path, UID, UID)
        join = "".join(f"echo 0 >{group}/cgroup.procs; " for group in groups)
        code = (
            "import pathlib; from hive.runtimes import limits as l; print(l.not_enforced('bubblewrap', pathlib.Path()))"
        )
        python = f"setpriv --reuid {UID} --regid {UID} --clear-groups {sys.executable}"
        path = os.pathsep.join(
            [str(Path(limits.__file__).parents[2]), *(one for one in sys.path if "-packages" in one)]
        )
        done = subprocess.run(
            ["sh", "-ec", f"{join} exec {python} -c '{code.replace(chr(39), chr(34))}'"],
            env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == f"{(limits.WALKED,)}\n", done.stdout + done.stderr
    finally:
        for group in groups:
            group.rmdir()
