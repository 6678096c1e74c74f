"""Runtime selection, host checks, and file systems without id-mapped mounts."""

import os
import subprocess
from pathlib import Path

import pytest
from contract import Lab, listen

from hive.errors import BadRequest, Unavailable
from hive.runtimes.bubblewrap import BubblewrapRuntime, maps_owners
from hive.runtimes.choose import choose, sandboxed
from hive.runtimes.host_checks import runtime_checks
from hive.runtimes.protocol import Exit, Mount
from hive.settings import Settings

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives agents a uid of their own")


def test_auto_never_selects_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=r"apt-get install bubblewrap.*--runtime process"):
        choose("auto")
    with pytest.raises(Unavailable, match="apt-get install bubblewrap"):
        choose("bubblewrap")
    assert choose("process").kind == "process"


def test_auto_selects_first_working_runtime():
    if all(runtime.unavailable_reason() for runtime in sandboxed()):
        pytest.skip("no sandboxed runtime works here")
    assert choose().kind == "bubblewrap"


def test_unknown_kind_lists_known_kinds():
    with pytest.raises(BadRequest, match="auto, nixos, nspawn, bubblewrap, process"):
        choose("docker")


def test_bubblewrap_error_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert "No permissions" in (BubblewrapRuntime().unavailable_reason() or "")


def test_every_failed_check_has_a_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    facts = runtime_checks(tmp_path / "not" / "yet", Settings())
    assert {"runtime", "git", "python3", "bubblewrap", "user"} <= {fact.name for fact in facts}
    monkeypatch.setenv("PATH", str(tmp_path))
    lacking = {fact.name: fact for fact in runtime_checks(tmp_path, Settings()) if not fact.good}
    assert {"runtime", "bubblewrap"} <= set(lacking)
    assert all(fact.fix for fact in lacking.values())


@pytest.mark.parametrize(
    ("exit_", "reason"),
    [
        (Exit(code=1), "exit code 1"),
        (Exit(signal=9, out_of_memory=False), "signal 9 (SIGKILL)"),
        (Exit(signal=9, out_of_memory=True), "out of memory"),
        (Exit(), "unknown"),
    ],
)
def test_exit_reason(exit_: Exit, reason: str):
    assert exit_.reason() == reason


@pytest.fixture
def unmappable(root: Path):
    """A folder on a file system without id-mapped mounts."""
    folder = root / "ramfs"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "ramfs", "none", str(folder)], check=False).returncode != 0:
        pytest.skip("this root may not mount")
    try:
        if maps_owners(folder):
            pytest.skip("this kernel supports id-mapped mounts everywhere")
        folder.chmod(0o700)
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@root_only
def test_without_idmapped_mounts_agent_folders_are_shared(unmappable: Path):
    lab = Lab(choose(), unmappable)
    container = lab.container(
        "/usr/bin/python3",
        "-c",
        "import socket; socket.socket(socket.AF_UNIX).connect('/run/hive/hive.sock');"
        "print(open('/config/prompt.md').read()); open('/state/mine', 'w')",
    )
    (container.config / "prompt.md").write_text("hello")
    for private in (container.config, container.socket_folder):
        private.chmod(0o700)
    (container.config / "prompt.md").chmod(0o600)
    with listen(container.socket_folder / "hive.sock"):
        assert lab.finish(container).code == 0, lab.output(container)
    assert lab.output(container) == ["hello"]
    assert (container.config / "prompt.md").stat().st_mode & 0o777 == 0o640


@root_only
def test_without_idmapped_mounts_refused_mount_names_setfacl(unmappable: Path):
    project = unmappable / "project"
    project.mkdir(mode=0o700)
    lab = Lab(choose(), unmappable)
    mount = Mount(host_path=project, folder="project")
    with pytest.raises(Unavailable, match=f"setfacl -R -m u:{lab.uid('coder')}:rwX"):
        lab.start(lab.container("true", mounts=(mount,)))
    os.chown(project, lab.uid("coder"), -1)
    lab.run("touch", "/work/project/new", mounts=(mount,))
    assert (project / "new").exists()
