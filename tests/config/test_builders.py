"""The plain builder: build commands in a real sandbox, their limits and their output."""

import os
import time
from pathlib import Path

import os_image
import pytest
from missing_tool import missing_tool

from hive.config import builders
from hive.config.builders import BuildFailed, PlainBuilder, copy_build_output
from hive.config.meta_flake import MetaFlake
from hive.config.repositories import Repositories
from hive.errors import BadRequest, LimitReached
from hive.paths import Paths
from hive.runtimes.choose import sandboxed
from hive.runtimes.os_tree import AGENT_ID, BootedRuntime
from hive.runtimes.process import ProcessRuntime
from hive.runtimes.protocol import Container, Runtime

UID = 231_000 if os.geteuid() == 0 else None


@pytest.fixture(params=["nspawn", "bubblewrap", "process"])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    if request.param == "nspawn":
        if os.geteuid() != 0:
            pytest.skip("only root boots systems")
        os_image.ensure()
    made = next(one for one in (*sandboxed(os_image.FOLDER), ProcessRuntime()) if one.kind == request.param)
    lack = made.unavailable_reason()
    if lack is not None:
        missing_tool(lack)
    return made


@pytest.fixture
def builder(paths: Paths, repositories: Repositories, runtime: Runtime) -> PlainBuilder:
    return PlainBuilder(paths, repositories, runtime, MetaFlake(paths))


def commit(repositories: Repositories, command: str, **files: str) -> str:
    changes: dict[str, bytes | None] = {name: text.encode() for name, text in files.items()}
    text = f"build = '''{command}'''\n"
    return repositories.commit_files("coder", {"agent.toml": text.encode(), **changes}, message="x")


def test_build_without_command_is_the_checked_out_commit(builder: PlainBuilder, repositories: Repositories):
    sha = repositories.main("coder")
    folder = builder.build("coder", sha, uid=UID)
    assert folder == repositories.generation("coder", sha)


def test_build_output_is_added_to_the_generation(builder: PlainBuilder, repositories: Repositories):
    command = (
        "mkdir -p out/deep && cat source > out/deep/made && ln -s out/deep/made link && printf x > run && chmod +x run"
    )
    sha = commit(repositories, command, source="hello")
    folder = builder.build("coder", sha, uid=UID)
    assert (folder / "link").read_text() == "hello"
    assert os.access(folder / "run", os.X_OK)
    assert {path.lstat().st_uid for path in folder.rglob("*")} == {os.geteuid()}
    assert builder.build("coder", sha, uid=UID) == folder


def test_build_command_cannot_change_committed_files(builder: PlainBuilder, repositories: Repositories):
    command = "echo evil > prompt.md; rm agent.toml; echo evil > agent.toml; rm source; mkdir source; echo x > source/y"
    sha = commit(repositories, command, source="hello")
    folder = builder.build("coder", sha, uid=UID)
    assert (folder / "prompt.md").read_bytes() == repositories.files("coder", sha)["prompt.md"]
    assert (folder / "agent.toml").read_bytes() == repositories.files("coder", sha)["agent.toml"]
    assert (folder / "source").read_text() == "hello"


def test_failing_build_reports_output_and_leaves_no_folder(
    builder: PlainBuilder, repositories: Repositories, paths: Paths
):
    sha = commit(repositories, "echo on the way; printf 'no \\033[31mcompiler' >&2; exit 7")
    with pytest.raises(BuildFailed, match=r"exit code 7") as failed:
        builder.build("coder", sha, uid=UID)
    assert "on the way" in str(failed.value)
    assert "no \\x1b[31mcompiler" in str(failed.value)
    assert list(paths.generations("coder").iterdir()) == []
    assert not list(paths.agent("coder").glob(".unfinished*"))


def test_build_past_its_time_limit_is_killed(
    builder: PlainBuilder, repositories: Repositories, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(builders, "BUILD_TIME_LIMIT_S", 1)
    with pytest.raises(BuildFailed, match="longer than 1 s"):
        builder.build("coder", commit(repositories, "echo begun; sleep 600"), uid=UID)


def test_build_cannot_see_agent_state_or_socket(
    repositories: Repositories, paths: Paths, runtime: Runtime, builder: PlainBuilder
):
    if runtime.kind == "process":
        pytest.skip("the process runtime has no walls, and says so")
    paths.agent_state("coder").mkdir()
    (paths.agent_state("coder") / "secret").write_text("secret")
    state = paths.agent_state("coder")
    command = f"ls -A /run/hive /config > seen; cat {state}/secret >> seen; ls {paths.state} >> seen; id -u >> seen"
    folder = builder.build("coder", commit(repositories, command), uid=UID)
    seen = (folder / "seen").read_text()
    assert "secret" not in seen and "hive.sock" not in seen and "applied" not in seen
    uid = AGENT_ID if isinstance(runtime, BootedRuntime) else UID
    assert seen.split()[-1] == str(uid or os.geteuid())


def tree_of(folder: Path, *, link: str = "", files: int = 0, size: int = 0) -> Path:
    folder.mkdir()
    if link:
        (folder / "link").symlink_to(link)
    for number in range(files):
        (folder / str(number)).write_text("")
    (folder / "big").write_bytes(b"x" * size)
    os.mkfifo(folder / "pipe")
    return folder


def test_build_output_over_a_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(builders, "BUILT_LIMIT_BYTES", 1000)
    monkeypatch.setattr(builders, "BUILT_FILES_MAX", 20)
    target = tmp_path / "target"
    target.mkdir()
    copy_build_output(tree_of(tmp_path / "fine", size=1000), target)
    assert [path.name for path in target.iterdir()] == ["big"]
    others = tmp_path / "others"
    others.mkdir()
    with pytest.raises(LimitReached, match="files"):
        copy_build_output(tree_of(tmp_path / "many", files=21), others)
    (others / "big").unlink(missing_ok=True)
    with pytest.raises(LimitReached, match="bytes"):
        copy_build_output(tree_of(tmp_path / "big", size=1001), others)
    with pytest.raises(BadRequest, match="leaves"):
        copy_build_output(tree_of(tmp_path / "out", link="/etc/passwd"), target)
    monkeypatch.setattr(builders, "BUILT_DEPTH_MAX", 5)
    deep = tmp_path / "deep"
    at = deep
    for _ in range(9):
        at.mkdir()
        at = at / "d"
    with pytest.raises(LimitReached, match="deep"):
        copy_build_output(deep, target)


def test_build_output_is_not_written_through_a_link(tmp_path: Path):
    source, target, outside = (tmp_path / name for name in ("source", "target", "outside"))
    for folder in (source / "a", target, outside):
        folder.mkdir(parents=True)
    (source / "a/file").write_text("x")
    (target / "a").symlink_to(outside)
    copy_build_output(source, target)
    assert list(outside.iterdir()) == []


def test_sweep_kills_build_of_a_crashed_daemon(
    builder: PlainBuilder, repositories: Repositories, paths: Paths, runtime: Runtime, tmp_path: Path
):
    for folder in ("tree", "config", "socket"):
        (paths.agent("coder") / ".unfinished-ofanother-x" / folder).mkdir(parents=True)
    left = paths.agent("coder") / ".unfinished-ofanother-x"
    container = Container(
        name="coder",
        incarnation="build",
        argv=("/bin/sh", "-c", "sleep 600"),
        environment={},
        state=left / "tree",
        config=left / "config",
        socket_folder=left / "socket",
        record=left / builders.RECORD,
        uid=UID,
    )
    pid = runtime.start(container).pid
    with repositories.unfinished("coder") as ours:
        builder.sweep("coder")
        assert ours.exists()
    assert not left.exists()
    deadline = time.monotonic() + 30
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
