"""The contract of every runtime."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import os_image
import pytest
from contract import Lab, eventually

from hive.errors import AlreadyDone, Unavailable
from hive.runtimes import cgroup, output, spawn
from hive.runtimes.protocol import Ended, Exit, Limits, NeverRan, Running

PYTHON = "/usr/bin/python3"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="control groups are root's")


def on_record(lab: Lab, container) -> dict:
    return json.loads((container.record / "run.json").read_text())


def test_record_without_run_is_never_ran(lab: Lab):
    record = lab.container("true").record
    assert lab.runtime.status(record) == NeverRan()
    assert lab.runtime.stop(record, grace_s=1) is None
    assert lab.runtime.kill(record) is None
    assert lab.runtime.output(record, lines=10) == []


def test_run_from_start_to_exit_code(lab: Lab):
    container = lab.container("sh", "-c", "echo out; echo err >&2; exit 3")
    running = lab.start(container)
    assert running.incarnation == container.incarnation
    assert lab.ended(container).code == 3
    assert lab.ended(container).reason() == "exit code 3"
    assert sorted(lab.output(container)) == ["err", "out"]
    assert lab.output(container, lines=1) == [lab.output(container)[-1]]


def test_status_has_pid_of_running_program(lab: Lab):
    container = lab.container("sh", "-c", "echo ready; exec sleep 1000")
    running = lab.start(container)
    lab.says(container, "ready")
    assert lab.runtime.status(container.record) == running
    name = Path(f"/proc/{running.pid}/comm")
    eventually(lambda: name.read_text().strip() == "sleep", "it is the program's own process")


def test_stdin_is_empty(lab: Lab):
    assert lab.run("sh", "-c", "cat; echo end") == ["end"]


def test_signal_is_distinguished_from_exit_code(lab: Lab):
    assert lab.finish(lab.container("sh", "-c", "kill -SEGV $$")).signal == signal.SIGSEGV
    died = lab.finish(lab.container("sh", "-c", "kill -KILL $$"))
    assert (died.signal, died.code) == (signal.SIGKILL, None)
    assert died.reason() == "signal 9 (SIGKILL)"
    assert lab.finish(lab.container("sh", "-c", "exit 137")).code == 137


@needs_root
def test_out_of_memory_is_distinguished_from_kill(lab: Lab):
    if not any("memory" in controllers for _, _, controllers in cgroup.hierarchies()):
        pytest.skip("this host has no memory controller")
    hungry = "held = bytearray(b'x' * 10**9)"
    died = lab.finish(lab.container(PYTHON, "-c", hungry, limits=Limits(memory_bytes=64 * 1024 * 1024)))
    assert died.out_of_memory is True
    assert died.reason() == "out of memory"
    container = lab.container("sleep", "1000", limits=Limits(memory_bytes=64 * 1024 * 1024))
    lab.start(container)
    killed = lab.runtime.kill(container.record)
    assert killed is not None
    assert (killed.signal, killed.out_of_memory) == (signal.SIGKILL, False)


@needs_root
def test_process_limit_holds_and_groups_are_removed(lab: Lab):
    if not any("pids" in controllers for _, _, controllers in cgroup.hierarchies()):
        pytest.skip("this host has no pids controller")
    bomb = "import os\ntry:\n while os.fork(): pass\n import time; time.sleep(1000)\nexcept OSError: print('bounded')"
    container = lab.container(PYTHON, "-c", bomb, limits=Limits(processes=20))
    lab.finish(container)
    assert "bounded" in lab.output(container)
    groups = on_record(lab, container)["groups"]
    assert groups
    assert not any(Path(group).exists() for group in groups)


def test_stop_sends_sigterm(lab: Lab):
    container = lab.container("sh", "-c", "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done")
    lab.start(container)
    lab.says(container, "ready")
    ended = lab.runtime.stop(container.record, grace_s=60)
    assert ended is not None
    assert ended.code == 0
    assert lab.output(container)[-1] == "bye"
    assert lab.runtime.stop(container.record, grace_s=60) is None


STUBBORN = """
trap '' TERM
(trap '' TERM; setsid sh -c 'trap "" TERM; echo $$ grandchild; while :; do sleep 1000; done' & wait) &
echo ready
while :; do sleep 1000; done
"""
TREE_MIN = 5
"""The program, its child, the grandchild, and the `sleep` of two of them."""


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_tree_that_ignores_sigterm_is_killed(lab: Lab, how: str):
    container = lab.container("sh", "-c", STUBBORN)
    lab.start(container)
    eventually(lambda: any("grandchild" in line for line in lab.output(container)), "the grandchild runs")
    root = on_record(lab, container)["shim"]
    eventually(lambda: len(spawn.below(root)) >= TREE_MIN, "the tree has grown")
    tree = [(pid, spawn.started(pid)) for pid in spawn.below(root)]
    stop = how == "stop"
    ended = lab.runtime.stop(container.record, grace_s=0.1) if stop else lab.runtime.kill(container.record)
    assert ended is not None
    assert ended.signal == signal.SIGKILL
    eventually(lambda: all(spawn.started(pid) != started for pid, started in tree), "every process is gone")


def test_orphans_are_killed_when_program_ends(lab: Lab):
    (lab.root / "agents/coder/state").mkdir(parents=True, exist_ok=True)
    waits = "while [ ! -e $HIVE_AGENT_STATE/go ]; do sleep 0.01; done; exit 5"
    container = lab.container("sh", "-c", f"setsid sleep 1000 & setsid sleep 1000 & {waits}")
    lab.start(container)
    shim_pid = on_record(lab, container)["shim"]
    eventually(lambda: names_below(shim_pid).count("sleep") == SLEEPERS, "what it leaves behind runs")
    tree = [(pid, started) for pid in spawn.below(shim_pid) if (started := spawn.started(pid)) is not None]
    (container.state / "go").touch()
    assert lab.ended(container).code == 5
    assert all(spawn.started(pid) != started for pid, started in tree)


SLEEPERS = 3
"""Two orphans, and the one that the program waits for."""


def names_below(pid: int) -> list[str]:
    """Names of the live processes below a process."""
    names = []
    for one in spawn.below(pid):
        with contextlib.suppress(OSError):
            names.append(Path(f"/proc/{one}/comm").read_text().strip())
    return names


def test_missing_program_leaves_nothing_behind(lab: Lab):
    container = lab.container("no-such-program")
    with pytest.raises(Unavailable, match="no-such-program"):
        lab.start(container)
    assert lab.runtime.status(container.record) == NeverRan()
    eventually(lambda: shim_count(container) == 0, "its shim is gone")


def test_failed_start_keeps_last_exit(lab: Lab):
    first = lab.container("sh", "-c", "exit 4")
    lab.finish(first)
    with pytest.raises(Unavailable):
        lab.start(lab.container("/no/such/program"))
    status = lab.runtime.status(first.record)
    assert isinstance(status, Ended)
    assert (status.incarnation, status.exit.code) == (first.incarnation, 4)


def shim_count(container) -> int:
    """Live shims of this agent, whatever the record says."""
    fds = 0
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            fds += entry.readlink() == container.record / "lock"
        except OSError:
            continue
    return fds


def test_environment_is_private_to_program(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OF_THE_DAEMON", "inherited")
    secret = "sk-a-secret-" + "x" * 100_000
    container = lab.container("sh", "-c", "env; echo ready; exec sleep 1000", environment={"API_KEY": secret})
    lab.start(container)
    lab.says(container, "ready")
    lines = lab.output(container)
    assert f"API_KEY={secret}" in lines
    assert not any("OF_THE_DAEMON" in line for line in lines)
    assert "/usr/bin" in next(line for line in lines if line.startswith("PATH=")).partition("=")[2].split(":")
    names = {line.partition("=")[0] for line in lines}
    assert {"HIVE_AGENT_SOCKET", "HIVE_AGENT_STATE", "HIVE_AGENT_CONFIG", "HOME", "TERM"} <= names
    holder = on_record(lab, container)["shim"]
    around = [holder, *spawn.below(holder)]
    for pid in around:
        assert b"sk-a-secret" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        if pid == lab.runtime.status(container.record).pid:
            continue
        try:
            assert b"sk-a-secret" not in Path(f"/proc/{pid}/environ").read_bytes()
        except PermissionError:
            continue  # The container's init is not dumpable.
    for file in container.record.iterdir():
        if not file.name.startswith("output") and not file.is_socket():
            assert b"sk-a-secret" not in file.read_bytes()


def test_second_start_is_refused(lab: Lab):
    container = lab.container("sleep", "1000")
    running = lab.start(container)
    with pytest.raises(AlreadyDone):
        lab.start(lab.container("true"))
    assert lab.runtime.status(container.record) == running


def test_one_of_concurrent_starts_succeeds(lab: Lab):
    containers = [lab.container("sleep", "1000") for _ in range(4)]

    def start(container) -> Running | None:
        try:
            return lab.start(container)
        except AlreadyDone:
            return None

    with ThreadPoolExecutor(len(containers)) as pool:
        won = [running for running in pool.map(start, containers) if running]
    assert len(won) == 1
    assert lab.runtime.status(containers[0].record) == won[0]


def test_next_incarnation_reuses_record(lab: Lab):
    first = lab.container("sh", "-c", "echo first; exit 1")
    lab.finish(first)
    second = lab.container("sh", "-c", "echo second; exec sleep 1000")
    running = lab.start(second)
    assert lab.runtime.status(second.record) == running
    lab.says(second, "second")
    assert lab.output(second) == ["first", "second"]


def test_eight_concurrent_starts_succeed(lab: Lab):
    containers = [lab.container("sh", "-c", f"echo {name}; exec sleep 1000", name=name) for name in "abcdefgh"]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lab.start, containers))
    for container in containers:
        lab.says(container, container.name)
        assert isinstance(lab.runtime.status(container.record), Running)
    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(lambda container: lab.runtime.kill(container.record), containers))
    assert [ended.signal for ended in ends if ended] == [signal.SIGKILL] * 8


def test_output_is_limited_and_keeps_newest_lines(lab: Lab):
    chatter = "for n in range(300000): print('line', n, 'x' * 40)\nprint('the', 'end')"
    container = lab.container(PYTHON, "-c", chatter)
    assert lab.finish(container).code == 0
    assert lab.output(container, lines=2)[-1] == "the end"
    assert len(lab.output(container, lines=10_000)) == 10_000
    files = [file.stat().st_size for file in container.record.glob("output*")]
    assert len(files) == 2
    assert all(size <= output.OUTPUT_FILE_BYTES for size in files)


DAEMON = """
import sys, msgspec, json, pathlib
from hive.runtimes.choose import choose
from hive.runtimes.protocol import Container
container = msgspec.json.decode(sys.stdin.buffer.read(), type=Container, dec_hook=lambda kind, text: kind(text))
choose(sys.argv[1], pathlib.Path(sys.argv[2])).start(container)
print("started", flush=True)
import time; time.sleep(1000)
"""


def started_by_killed_daemon(lab: Lab, container) -> None:
    import msgspec

    encoded = msgspec.json.encode(container, enc_hook=str)
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON, lab.runtime.kind, str(os_image.FOLDER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as daemon:
        lab._started.add(container.record)
        daemon.stdin.write(encoded)
        daemon.stdin.close()
        assert daemon.stdout.readline() == b"started\n"
        daemon.kill()


def test_run_outlives_daemon_and_is_found_again(lab: Lab):
    container = lab.container("sh", "-c", "echo ready; exec sleep 1000")
    started_by_killed_daemon(lab, container)
    again = type(lab.runtime)()
    status = again.status(container.record)
    assert isinstance(status, Running)
    assert status.incarnation == container.incarnation
    facts = on_record(lab, container)
    assert spawn.parent_of(facts["shim"]) != os.getpid()
    held = {str(fd.readlink()) for fd in Path(f"/proc/{facts['shim']}/fd").iterdir()}
    allowed = ("/dev/null", "pipe:", str(container.record))
    assert all(target.startswith(allowed) for target in held), held
    killed = again.kill(container.record)
    assert killed is not None
    assert killed.signal == signal.SIGKILL


def test_exit_without_daemon_is_recorded(lab: Lab):
    (lab.root / "agents/coder/state").mkdir(parents=True, exist_ok=True)
    waits = "while [ ! -e $HIVE_AGENT_STATE/go ]; do sleep 0.01; done; exit 7"
    container = lab.container("sh", "-c", waits)
    started_by_killed_daemon(lab, container)
    (container.state / "go").touch()
    assert lab.ended(container).code == 7
    assert lab.ended(container).at_ms is not None


def test_reused_pid_is_not_the_run(lab: Lab):
    container = lab.container("sh", "-c", "exit 0")
    lab.finish(container)
    (container.record / "exit.json").unlink()
    facts = on_record(lab, container)
    somebody = os.getpid()
    facts |= {"pid": somebody, "root": somebody, "shim": somebody}
    (container.record / "run.json").write_text(json.dumps(facts))
    assert lab.runtime.status(container.record) == Ended(incarnation=container.incarnation, exit=Exit())
    assert lab.runtime.kill(container.record) is None


def test_record_of_another_boot_is_ended(lab: Lab):
    container = lab.container("sleep", "1000")
    lab.start(container)
    facts = (container.record / "run.json").read_text()
    (container.record / "run.json").write_text(json.dumps(json.loads(facts) | {"boot": "another"}))
    (container.record / "lock").rename(container.record / "lock-of-this-boot")
    assert lab.runtime.status(container.record) == Ended(incarnation=container.incarnation, exit=Exit())
    (container.record / "run.json").write_text(facts)


def test_zombie_is_not_alive():
    child = subprocess.Popen(["true"])
    eventually(lambda: spawn.stat_fields(child.pid)[:1] == ["Z"], "it is a zombie")
    assert spawn.started(child.pid) is None
    child.wait()


def test_killed_shim_leaves_unknown_exit(lab: Lab):
    container = lab.container("sh", "-c", "echo ready; exec sleep 1000")
    running = lab.start(container)
    lab.says(container, "ready")
    os.kill(on_record(lab, container)["shim"], signal.SIGKILL)
    lab.runtime.kill(container.record)
    eventually(lambda: spawn.started(running.pid) is None, "the program is gone")
    assert lab.runtime.status(container.record) == Ended(incarnation=container.incarnation, exit=Exit())
    assert lab.finish(lab.container("sh", "-c", "exit 6")).code == 6
