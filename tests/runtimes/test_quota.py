"""Project quotas: the kernel refuses what exceeds an agent's disk limit, and the agent cannot leave its project.

Skipped where the folder for temporary files is on a file system without project quotas. To run them, set TMPDIR to a
folder on ext4 or xfs that is mounted with `prjquota`, as root.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract import PYTHON, Lab

from hive.runtimes import limits, quota
from hive.runtimes.limits import MIB

LIMIT_BYTES = 8 * MIB
FILL = """
import os
state = os.environ["HIVE_AGENT_STATE"]
written = 0
try:
    with open(state + "/fill", "wb", buffering=0) as file:
        while True: written += file.write(b"x" * 65536)
except OSError:
    print(written, flush=True)
    raise
"""
MANY = """
import os
state = os.environ["HIVE_AGENT_STATE"]
made = 0
try:
    while True:
        os.mkdir(f"{state}/{made}")
        made += 1
except OSError:
    print(made, flush=True)
    raise
"""
ESCAPE = f"""
import fcntl, os, struct
state = os.environ["HIVE_AGENT_STATE"]
os.mkdir(state + "/below")
fd = os.open(state + "/below", os.O_RDONLY)
refused = 0
for request, value in (
    ({quota.FS_IOC_FSSETXATTR}, struct.pack("=5I8x", 0, 0, 0, 0, 0)),
    (0x40086602, struct.pack("l", 0)),
):
    try:
        fcntl.ioctl(fd, request, value)
    except OSError:
        refused += 1
print("refused", refused)
"""


@pytest.fixture
def limited(sandboxed_lab: Lab) -> Iterator[Lab]:
    """A lab whose agent has 8 MiB."""
    if not quota.offered(str(sandboxed_lab.root)):
        pytest.skip("no project quotas here")
    state = sandboxed_lab.container("true").state
    project = sandboxed_lab.uid("coder")
    quota.assign(str(state), project)
    quota.limit(str(state), project, LIMIT_BYTES)
    yield sandboxed_lab
    quota.limit(str(state), project, 0)


def used(lab: Lab) -> quota.Usage:
    os.sync()  # ext4 counts delayed blocks at once, xfs reserves some ahead.
    return quota.usage(str(lab.root), lab.uid("coder"))


def test_write_beyond_the_limit_is_refused_and_named(limited: Lab):
    container = limited.container(PYTHON, "-c", FILL)
    assert limited.finish(container).reason() == "disk full"
    written = int(limited.output(container)[0])
    assert LIMIT_BYTES - MIB < written <= LIMIT_BYTES
    assert LIMIT_BYTES - MIB < used(limited).used_bytes <= LIMIT_BYTES


def test_empty_files_are_limited(limited: Lab):
    container = limited.container(PYTHON, "-c", MANY)
    assert limited.finish(container).reason() == "disk full"
    assert int(limited.output(container)[0]) <= LIMIT_BYTES // quota.FILE_BYTES


def test_agent_cannot_leave_its_project(limited: Lab):
    assert limited.run(PYTHON, "-c", ESCAPE) == ["refused 2"]


def test_files_from_before_count_and_links_are_not_followed(limited: Lab):
    state, other = limited.root / "agents/old/state", limited.root / "other"
    (state / "deep/er").mkdir(parents=True)
    other.mkdir()
    (other / "file").write_bytes(bytes(MIB))
    (state / "link").symlink_to(other)
    (state / "deep/er/file").write_bytes(os.urandom(2 * MIB))
    project = limited.uid("old")
    quota.assign(str(state), project)
    os.sync()
    assert 2 * MIB <= quota.usage(str(state), project).used_bytes < 3 * MIB
    (state / "deep/er/more").write_bytes(os.urandom(MIB))
    os.sync()
    assert quota.usage(str(state), project).used_bytes >= 3 * MIB


def test_removed_limit_holds_nobody(limited: Lab):
    state, project = str(limited.root), limited.uid("coder")
    assert quota.usage(state, project).limit_bytes == LIMIT_BYTES
    quota.limit(state, project, 0)
    assert quota.usage(state, project).limit_bytes == 0


def test_enforcement_names_the_quota(limited: Lab):
    kind = limited.runtime.kind
    disk = {one.limit: one for one in limits.enforcement(kind, limited.root)}["disk"]
    assert (disk.by, disk.missing) == ("a project quota of the file system", None)
    assert not limits.has_quota("process", limited.root)


def test_file_system_without_project_quotas_offers_none(tmp_path: Path):
    if subprocess.run(["mount", "-t", "tmpfs", "none", str(tmp_path)], check=False).returncode != 0:
        pytest.skip("mount is not permitted")
    try:
        assert not quota.offered(str(tmp_path))
        disk = {one.limit: one for one in limits.enforcement("bubblewrap", tmp_path)}["disk"]
        assert disk.missing == limits.WALKED
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
