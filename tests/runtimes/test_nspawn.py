"""What the runtime nspawn adds to the contract: a booted system, a shared tree, its choice, and its image."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import os_image
import pytest
from contract import Lab, eventually, usable

from hive.errors import AlreadyDone, Unavailable
from hive.runtimes import images, spawn
from hive.runtimes.choose import choose
from hive.runtimes.host_checks import runtime_checks
from hive.runtimes.nspawn import NspawnRuntime
from hive.runtimes.os_tree import AGENT_ID
from hive.runtimes.protocol import Container, Running
from hive.settings import RuntimeSettings, Settings

LOOK = """
import glob, json, os, subprocess
state = subprocess.run(["systemctl", "is-active", "hive-agent.service"], capture_output=True, text=True).stdout.strip()
tries = []
for path in ("/usr/probe", "/etc/probe", "/run/hive-control/shim.sock", "/run/hive-units/probe", "/sys/probe"):
    try:
        open(path, "w")
        tries.append(path)
    except OSError:
        pass
interfaces = [line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line]
print(json.dumps({"init": open("/proc/1/comm").read().strip(), "unit": state, "wrote": tries, "net": interfaces,
    "map": open("/proc/self/uid_map").read().split(), "cgroup": open("/proc/self/cgroup").read()}))
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="hive-") as folder:
        made = Lab(usable(NspawnRuntime(os_image.FOLDER)), Path(folder).resolve())
        yield made
        made.close()


@pytest.fixture(scope="module")
def running(lab: Lab) -> Container:
    """A container that several tests look at."""
    container = lab.container("python3", "-c", f"{LOOK}\nimport sys, time; sys.stdout.flush(); time.sleep(1000)")
    lab.start(container)
    eventually(lambda: lab.output(container), "the program prints")
    return container


def test_program_is_a_unit_of_a_booted_system(lab: Lab, running: Container):
    saw = json.loads(lab.output(running)[0])
    assert (saw["init"], saw["unit"]) == ("systemd", "active")
    assert saw["wrote"] == []


def test_container_has_private_network_and_user_ids(lab: Lab, running: Container):
    saw = json.loads(lab.output(running)[0])
    assert saw["net"] == ["lo"]
    assert running.uid is not None
    assert saw["map"] == ["0", str(running.uid - AGENT_ID), "65536"]


def test_processes_of_the_system_belong_to_the_agents_range(lab: Lab, running: Container):
    root = json.loads((running.record / "run.json").read_text())["root"]
    inside = [root, *spawn.below(root)]
    uids = {int(Path(f"/proc/{pid}/status").read_text().partition("Uid:")[2].split()[0]) for pid in inside}
    assert running.uid is not None
    first = running.uid - AGENT_ID
    assert len(inside) > 2
    assert all(first <= uid < first + 65536 for uid in uids)


def test_containers_have_separate_cgroups_and_share_one_tree(lab: Lab, running: Container):
    other = lab.container("sleep", "1000", name="other")
    lab.start(other)
    groups = [json.loads((one.record / "run.json").read_text())["groups"] for one in (running, other)]
    assert groups[0] and not set(groups[0]) & set(groups[1])
    assert lab.runtime.kill(other.record) is not None
    assert isinstance(lab.runtime.status(running.record), Running)
    assert not any(Path(group).exists() for group in groups[1])
    assert not (os_image.FOLDER / "work").exists(), "the tree is not written to"


def test_console_of_the_system_is_kept_apart_from_the_output(lab: Lab):
    container = lab.container("sh", "-c", "echo out", name="quiet")
    assert lab.finish(container).code == 0
    assert lab.output(container) == ["out"]
    assert (container.record / "console").exists()


def test_tree_that_does_not_boot_fails_with_its_output(lab: Lab, tmp_path: Path):
    (tmp_path / "usr/lib/systemd").mkdir(parents=True)
    (tmp_path / "usr/lib/os-release").write_text("ID=none\n")
    container = lab.container("true", name="broken")
    with pytest.raises(Unavailable, match=r"could not be started: .*(init|exec|boot)"):
        NspawnRuntime(tmp_path).start(container)
    assert not list(Path("/run/systemd/nspawn/propagate").glob("h-broken*"))


def test_auto_is_nspawn_only_with_an_image(lab: Lab):
    assert choose().kind == "bubblewrap"
    assert choose(image=os_image.FOLDER).kind == "nspawn"
    assert choose("bubblewrap", os_image.FOLDER).kind == "bubblewrap"


def test_auto_falls_back_from_a_missing_image(lab: Lab, tmp_path: Path):
    assert choose(image=tmp_path).kind == "bubblewrap"
    with pytest.raises(Unavailable, match="hive image build"):
        choose("nspawn", tmp_path)


@pytest.mark.parametrize(("image", "says"), [(None, "needs an image"), (Path("/proc"), "not an OS tree")])
def test_doctor_says_what_nspawn_lacks(image: Path | None, says: str, tmp_path: Path):
    if os.geteuid() != 0 or shutil.which("systemd-nspawn") is None:
        pytest.skip("nspawn lacks more here")
    settings = Settings(runtime=RuntimeSettings(image=None if image is None else str(image)))
    found = {check.name: check for check in runtime_checks(tmp_path, settings)}
    assert not found["nspawn"].good
    assert says in (found["nspawn"].fix or "")


def test_image_build_refuses_an_existing_folder(lab: Lab, tmp_path: Path):
    with pytest.raises(AlreadyDone, match="exists"):
        images.build(tmp_path)


def test_image_command_refuses_in_one_line(lab: Lab, tmp_path: Path):
    command = [sys.executable, "-m", "hive", "image", "build", str(tmp_path), "--state", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "exists" in done.stderr and done.stderr.count("\n") == 1


def test_failed_image_build_leaves_no_folder(lab: Lab, tmp_path: Path):
    with pytest.raises(images.ImageFailed, match="mmdebstrap failed"):
        images.build(tmp_path / "image", mirror="copy:/nonexistent")
    assert list(tmp_path.iterdir()) == []
