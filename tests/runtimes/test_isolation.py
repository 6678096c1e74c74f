"""What a sandboxed agent can see and do; each probe runs inside."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from contract import Lab, boots, eventually, listen

from hive.errors import Unavailable
from hive.runtimes import installation, spawn
from hive.runtimes.os_tree import AGENT_ID
from hive.runtimes.protocol import Bind, Ended, Mount

PYTHON = "/usr/bin/python3"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives agents a uid of their own")


def inside(lab: Lab, code: str, **more: object) -> object:
    """Run `code` inside and return its variable `answer`."""
    lines = lab.run(PYTHON, "-c", f"import json, os, sys\n{code}\nprint(json.dumps(answer))", **more)
    return json.loads(lines[-1])


def succeeding(*expressions: str) -> str:
    """Code that lists the expressions that succeeded."""
    body = "\n".join(
        f"try:\n  {expression}\n  answer.append({expression!r})\nexcept OSError as error: pass"
        for expression in expressions
    )
    return f"import socket\nanswer = []\n{body}"


def connects(path: Path) -> str:
    return f"socket.socket(socket.AF_UNIX).connect({str(path)!r})"


def test_agent_connects_to_own_socket_in_read_only_folder(sandboxed_lab: Lab):
    container = sandboxed_lab.container("true")
    with listen(container.socket_folder / "hive.sock"):
        answer = inside(
            sandboxed_lab,
            succeeding(
                connects(Path("/run/hive/hive.sock")),
                "open('/run/hive/other', 'w')",
                "os.unlink('/run/hive/hive.sock')",
                "os.chmod('/run/hive/hive.sock', 0o777)",
            ),
        )
    assert answer == [connects(Path("/run/hive/hive.sock"))]


def test_socket_recreated_by_next_daemon_is_reachable(sandboxed_lab: Lab):
    code = "import os, socket\nwhile not os.path.exists('/run/hive/hive.sock'): pass\nprint('there')\n"
    container = sandboxed_lab.container(
        PYTHON, "-c", f"{code}{connects(Path('/run/hive/hive.sock'))}\nprint('reached')"
    )
    sandboxed_lab.start(container)
    old = socket.socket(socket.AF_UNIX)
    old.bind(str(container.socket_folder / "new"))
    (container.socket_folder / "new").chmod(0o600)
    old.listen()
    (container.socket_folder / "new").rename(container.socket_folder / "hive.sock")
    sandboxed_lab.ended(container)
    old.close()
    assert sandboxed_lab.output(container) == ["there", "reached"]


def test_other_hive_files_are_unreachable(sandboxed_lab: Lab):
    lab = sandboxed_lab
    other = lab.container("sleep", "1000", name="other")
    lab.start(other)
    (lab.root / "events.db").write_text("precious")
    (other.state / "secret").write_text("secret")
    with listen(lab.root / "host.sock"), listen(other.socket_folder / "hive.sock"):
        paths = [lab.root / "events.db", other.state / "secret", other.record / "run.json", lab.root]
        answer = inside(
            lab,
            succeeding(
                connects(lab.root / "host.sock"),
                connects(other.socket_folder / "hive.sock"),
                *(f"os.stat({str(path)!r})" for path in paths),
                *(f"os.listdir('/proc/1/root{path.parent}')" for path in paths),
                *(() if boots(lab.runtime) else host_folders()),
            ),
        )
    assert answer == []


def host_folders() -> tuple[str, ...]:
    """Folders that an own operating system has too, but not the host's."""
    installed_in_root = any(str(folder).startswith("/root") for folder in installation.folders())
    root = "os.stat('/root/.ssh')" if installed_in_root else "os.listdir('/root')"
    return ("os.stat('/sys')", "os.stat('/home')", root)


def test_root_only_files_are_unreadable(sandboxed_lab: Lab):
    secret = sandboxed_lab.root / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    (sandboxed_lab.container("true").state / "way-out").symlink_to(secret)
    answer = inside(
        sandboxed_lab,
        succeeding(
            "open('/etc/shadow')",
            f"open({str(secret)!r})",
            "open('/state/way-out')",
            "open('/proc/kcore', 'rb')",
            "open('/dev/mem', 'rb')",
            "open('/dev/vda', 'rb')",
        ),
    )
    assert answer == []


def test_other_processes_are_invisible(sandboxed_lab: Lab):
    sandboxed_lab.start(sandboxed_lab.container("sleep", "1000", name="other"))
    answer = inside(
        sandboxed_lab,
        "pids = sorted(int(n) for n in os.listdir('/proc') if n.isdecimal())\n"
        "answer = pids, os.getpid(), [open(f'/proc/{n}/comm').read().strip() for n in pids]",
    )
    pids, own, names = answer
    assert pids == [1, own, own + 1] or boots(sandboxed_lab.runtime)
    assert "sleep" not in names, "the other agent's process"
    answer = inside(
        sandboxed_lab,
        succeeding(
            f"os.kill({os.getpid()}, 0)",
            "os.kill(1, 9) or os.stat('/proc/1/exe').st_size",
            "open('/proc/1/environ').read()",
            "os.listdir('/proc/1/fd')",
        ),
    )
    assert answer == []


def test_only_state_and_tmp_are_writable(sandboxed_lab: Lab):
    installed = list(installation.folders())
    places = [
        "/",
        "/etc",
        "/usr",
        "/usr/bin",
        "/config",
        "/run",
        "/run/hive",
        "/work",
        "/dev",
        "/proc",
        "/root",
        "/var",
        *(str(folder) for folder in installed),
    ]
    answer = inside(
        sandboxed_lab,
        succeeding(*(f"open({place!r} + '/probe', 'w')" for place in (*places, "/state", "/tmp", "/dev/shm"))),
    )
    assert answer == [f"open({place!r} + '/probe', 'w')" for place in ("/state", "/tmp", "/dev/shm")]
    for folder in installed:
        assert not (folder / "probe").exists()


def test_tmp_is_private(sandboxed_lab: Lab):
    with_name = sandboxed_lab.root.parent if sandboxed_lab.root.parent == Path("/tmp") else Path("/tmp")
    (with_name / f"hive-probe-{os.getpid()}").touch()
    try:
        assert inside(sandboxed_lab, "answer = [n for n in os.listdir('/tmp') if 'probe' in n]") == []
    finally:
        (with_name / f"hive-probe-{os.getpid()}").unlink()


def test_agent_has_no_privileges(sandboxed_lab: Lab):
    status = inside(
        sandboxed_lab, "answer = dict(map(str.strip, l.partition(':')[::2]) for l in open('/proc/self/status'))"
    )
    assert isinstance(status, dict)
    sets = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    assert {name: int(status[name], 16) for name in sets} == dict.fromkeys(sets, 0)
    assert status["NoNewPrivs"] == "1"
    expected = sandboxed_lab.uid("coder") if os.geteuid() == 0 else os.getuid()
    if boots(sandboxed_lab.runtime):
        expected = AGENT_ID
    assert status["Uid"].split() == [str(expected)] * 4
    assert status["Gid"].split()[0] != "0"
    assert "0" not in status["Groups"].split()
    leave = succeeding(
        "os.setuid(0)", "os.setgroups([0])", "os.chroot('/state')", "os.mknod('/tmp/d', 0o060600, os.makedev(8, 0))"
    )
    assert inside(sandboxed_lab, leave) == []


def test_setuid_files_cannot_be_created(sandboxed_lab: Lab):
    project = sandboxed_lab.root / "project"
    project.mkdir()
    mount = Mount(host_path=project, folder="project")
    code = succeeding(
        "open('/work/project/f', 'w').close() or os.chmod('/work/project/f', 0o4755)",
        "os.chmod('/work/project/f', 0o2755)",
        "os.fchmod(os.open('/work/project/f', os.O_RDONLY), 0o4755)",
        "os.open('/work/project/g', os.O_CREAT | os.O_WRONLY, 0o4755)",
        "os.open('/state/g', os.O_CREAT | os.O_WRONLY, 0o4755)",
        "os.mknod('/work/project/h', 0o104755)",
        "os.mkdir('/work/project/d') or os.chmod('/work/project/d', 0o2775)",
    )
    assert inside(sandboxed_lab, code, mounts=(mount,)) == []
    made = inside(
        sandboxed_lab,
        "os.chmod('/work/project/f', 0o755); answer = oct(os.stat('/work/project/f').st_mode)",
        mounts=(mount,),
    )
    assert made == "0o100755"


def test_daemon_keyring_is_unreachable(sandboxed_lab: Lab):
    read_session_keyring = (
        "ctypes.CDLL(None, use_errno=True).syscall({'x86_64': 250}.get(os.uname().machine, 219), 0, -3, 0)"
    )
    code = f"import ctypes\nfailed = {read_session_keyring}\nanswer = failed, os.strerror(ctypes.get_errno())"
    assert inside(sandboxed_lab, code) == [-1, "Function not implemented"]


def test_hostname_and_user_are_private(sandboxed_lab: Lab):
    answer = inside(
        sandboxed_lab,
        "import pwd, socket\nanswer = socket.gethostname(), pwd.getpwuid(os.getuid()).pw_dir, os.getcwd()",
    )
    assert answer == ["coder", "/state", "/state"]


def test_promised_programs_exist(sandboxed_lab: Lab):
    lines = sandboxed_lab.run(
        "sh",
        "-ec",
        "git init -q /state/repo; cd /state/repo; git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x;"
        "python3 -c 'import ssl, sqlite3; print(1)'; test -r /etc/hosts;"
        "test -d /work; echo $HOME",
    )
    assert lines == ["1", "/state"]


@root_only
def test_agent_runs_as_its_own_host_user(sandboxed_lab: Lab):
    running = sandboxed_lab.start(sandboxed_lab.container("sleep", "1000"))
    status = Path(f"/proc/{running.pid}/status").read_text()
    assert f"Uid:\t{sandboxed_lab.uid('coder')}\t" in status


def test_harness_is_importable(sandboxed_lab: Lab):
    code = "import hive.names, msgspec, sys; print(hive.names.MANAGER)"
    path = os.pathsep.join(os.environ.get("PYTHONPATH", "").split(os.pathsep))
    assert sandboxed_lab.run(sys.executable, "-c", code, environment={"PYTHONPATH": path} if path else {}) == [
        "manager"
    ]


def test_writes_to_mount_appear_on_host(sandboxed_lab: Lab):
    project = sandboxed_lab.root / "project"
    project.mkdir(mode=0o700)
    (project / "mine").write_text("mine")
    (project / "mine").chmod(0o600)
    mount = Mount(host_path=project, folder="project")
    sandboxed_lab.run(
        "sh",
        "-ec",
        "cat /work/project/mine; echo more >>/work/project/mine; mkdir /work/project/d; echo new >/work/project/d/new",
        mounts=(mount,),
    )
    assert (project / "mine").read_text() == "minemore\n"
    assert (project / "d/new").read_text() == "new\n"
    assert {path.stat().st_uid for path in project.rglob("*")} == {os.geteuid()}


@root_only
def test_mount_keeps_owner(sandboxed_lab: Lab):
    project = sandboxed_lab.root / "project"
    project.mkdir(mode=0o700)
    os.chown(project, 12345, 12346)
    (project / "roots").write_text("root's own")
    (project / "roots").chmod(0o600)
    mount = Mount(host_path=project, folder="project")
    answer = inside(
        sandboxed_lab, succeeding("open('/work/project/new', 'w')", "open('/work/project/roots')"), mounts=(mount,)
    )
    assert answer == ["open('/work/project/new', 'w')"]
    made = (project / "new").stat()
    assert (made.st_uid, made.st_gid) == (12345, 12346)


def test_read_only_mount_refuses_writes(sandboxed_lab: Lab):
    project = sandboxed_lab.root / "project"
    project.mkdir()
    (project / "file").write_text("x")
    mount = Mount(host_path=project, folder="project", read_only=True)
    code = succeeding(
        "open('/work/project/file')",
        "open('/work/project/file', 'a')",
        "open('/work/project/new', 'w')",
        "os.unlink('/work/project/file')",
    )
    assert inside(sandboxed_lab, code, mounts=(mount,)) == ["open('/work/project/file')"]


def test_bound_repository_works_with_git(sandboxed_lab: Lab):
    proposed = sandboxed_lab.root / "proposed"
    subprocess.run(["git", "init", "-q", str(proposed)], check=True)
    container = sandboxed_lab.container(
        "sh",
        "-ec",
        "cd /agents/coder; git -c user.name=m -c user.email=m@h commit -q --allow-empty -m x; git rev-parse HEAD",
    )
    container = msgspec.structs.replace(
        container, binds=(Bind(host_path=proposed, inside="/agents/coder", read_only=False),)
    )
    assert sandboxed_lab.finish(container).code == 0
    told = subprocess.run(["git", "-C", str(proposed), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert sandboxed_lab.output(container)[-1] == told.stdout.strip()


@pytest.mark.parametrize("where", ["state", ".", "agents"])
def test_mount_containing_hive_files_is_refused(sandboxed_lab: Lab, where: str):
    host_path = (
        sandboxed_lab.root / "agents/coder/state" if where == "state" else sandboxed_lab.root / where
    ).resolve()
    host_path.mkdir(parents=True, exist_ok=True)
    mount = Mount(host_path=host_path.parent if where == "state" else host_path, folder="all")
    with pytest.raises(Unavailable, match="own files"):
        sandboxed_lab.start(sandboxed_lab.container("true", mounts=(mount,)))


def test_mount_replaced_by_link_is_refused(sandboxed_lab: Lab):
    (sandboxed_lab.root / "project").mkdir()
    (sandboxed_lab.root / "project/sub").symlink_to("/etc")
    with pytest.raises(Unavailable, match="link"):
        sandboxed_lab.start(
            sandboxed_lab.container("true", mounts=(Mount(host_path=sandboxed_lab.root / "project/sub", folder="sub"),))
        )


@root_only
def test_giving_state_follows_no_links(sandboxed_lab: Lab):
    container = sandboxed_lab.container("true")
    outside = sandboxed_lab.root / "outside"
    outside.write_text("root's")
    (container.state / "link").symlink_to(outside)
    (container.state / "folder-link").symlink_to(sandboxed_lab.root)
    os.link(outside, container.state / "second-name")
    (container.state / "of-the-daemon").write_text("x")
    assert sandboxed_lab.finish(container).code == 0
    assert outside.stat().st_uid == 0
    assert sandboxed_lab.root.stat().st_uid == 0
    assert (container.state / "of-the-daemon").stat().st_uid == container.uid
    assert (container.state / "link").lstat().st_uid == container.uid


def test_container_ends_with_its_shim(sandboxed_lab: Lab):
    container = sandboxed_lab.container("sh", "-c", "setsid sleep 1000 & echo ready; sleep 1000")
    running = sandboxed_lab.start(container)
    sandboxed_lab.says(container, "ready")
    init = spawn.parent_of(running.pid)
    tree = [running.pid, *spawn.children(running.pid), init]
    os.kill(json.loads((container.record / "run.json").read_text())["shim"], 9)
    eventually(lambda: all(spawn.started(pid) is None for pid in tree), "all of the container is gone")
    assert isinstance(sandboxed_lab.runtime.status(container.record), Ended)
    groups = json.loads((container.record / "run.json").read_text())["groups"]
    assert [group for group in groups if Path(group).exists()] == []


DRIVER = """
import pathlib, sys
from contract import Lab, sandboxed_runtimes
import hive
assert str(pathlib.Path(hive.__file__)).startswith(sys.argv[1]), hive.__file__
lab = Lab(next(r for r in sandboxed_runtimes() if r.kind == sys.argv[2]), pathlib.Path(sys.argv[1]))
code = "import hive; print(hive.__file__)"
print(*lab.run(sys.executable, "-c", code, environment={"PYTHONPATH": sys.argv[1] + "/src"}))
"""


@root_only
def test_installation_below_private_folder_is_visible(sandboxed_lab: Lab):
    private = sandboxed_lab.root / "private"
    private.mkdir(mode=0o700)
    package = Path(installation.hive.__file__).parent
    shutil.copytree(package, private / "src/hive", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (private / "src").rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    path = f"{private}/src:{Path(__file__).parent}:{Path(__file__).parents[1]}"
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(private), sandboxed_lab.runtime.kind],
        cwd="/",
        env={
            "PYTHONPATH": f"{private}/src:{Path(__file__).parent}:{Path(__file__).parents[1]}",
            "PATH": os.environ["PATH"],
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == f"{private}/src/hive/__init__.py", done.stderr
