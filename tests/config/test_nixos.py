"""Deploys under the runtime nixos in a running hive: real Nix and systemd, a stand-in for nixpkgs."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import nixos_stand_in
import pytest
from system.conftest import usable
from system.hive_process import HiveProcess, eventually

from hive.config.meta_flake import locked_revision
from hive.config.nix_builder import NIXOS
from hive.runtimes.nixos import SYSTEM

pytestmark = pytest.mark.system

SERVICE = """{ pkgs, lib, config, options, ... }:
{
  environment.systemPackages = [ pkgs.git pkgs.python3 ];
  systemd.services.beacon = {
    wantedBy = [ "multi-user.target" ];
    script = "echo %s > /state/beacon; exec sleep 1000";
  };
}
"""
OLD_FLAKE = "{ outputs = { self, ... }: { nixosModules.default = import ./agent.nix; }; }\n"


@pytest.fixture(scope="module")
def hive() -> Iterator[HiveProcess]:
    """A hive with one agent. The tests below deploy to it in order."""
    made = HiveProcess(runtime=usable("nixos")).up()
    made.ask("set_paused", name="manager", paused=True)
    made.spawn("coder")
    made.becomes_whole()
    yield made
    made.close()


def propose(hive: HiveProcess, **files: str) -> int:
    """Commit files of `proposed` as the manager would, and approve them."""
    proposed = hive.paths.proposed("coder")
    git = ["git", "-c", "safe.directory=*", "-C", str(proposed)]
    subprocess.run([*git, "pull", "--quiet", "applied", "main"], check=True)
    for name, text in files.items():
        (proposed / name.replace("_", ".")).write_text(text)
    subprocess.run([*git, "commit", "--quiet", "-am", "x"], check=True)
    with hive.agent("manager") as lines:
        id: int = lines.ask("request_apply_commit", agent="coder", commit_ref="main")["id"]
    hive.ask("approve", id=id)
    return id


def system(hive: HiveProcess) -> Path:
    """The system that the agent runs on, in the store."""
    return (generation(hive) / SYSTEM).resolve()


def generation(hive: HiveProcess) -> Path:
    (found,) = hive.paths.generations("coder").glob(f"{hive.row('coder')['deployed_sha']}*")
    return found


def beacon(hive: HiveProcess) -> str:
    """What the service wrote; empty if it does not run."""
    path = hive.paths.agent_state("coder") / "beacon"
    return path.read_text().strip() if path.exists() else ""


def test_agent_runs_on_the_system_of_its_template(hive: HiveProcess):
    assert hive.running("coder") is not None
    assert system(hive).name.endswith("-nixos-system-coder")
    assert {path.name for path in (system(hive) / "sw/bin").iterdir()} == {"git", "python3"}


def test_service_of_an_approved_configuration_runs_inside(hive: HiveProcess):
    before = system(hive)
    id = propose(hive, agent_nix=SERVICE % "one")
    assert hive.event("Rebuilt", approval_id=id)["ok"] is True
    eventually(lambda: beacon(hive) == "one", "the service has started")
    assert system(hive) != before


def test_running_system_is_a_garbage_collection_root(hive: HiveProcess):
    current = system(hive)
    root = hive.paths.agent("coder") / NIXOS.roots / generation(hive).name
    assert root.resolve() == current
    roots = nixos_stand_in.nix_store("--query", "--roots", str(current))
    assert str(root) in roots
    meta = hive.paths.meta
    assert locked_revision((meta / "flake.lock").read_bytes(), "coder") == generation(hive).name


def test_failing_build_keeps_the_running_system(hive: HiveProcess):
    current, run = system(hive), hive.running("coder")
    id = propose(hive, agent_nix="{ ... }: { services.nothing.enable = true; }\n")
    hive.event("ApprovalFailed", id=id)
    with hive.agent("manager") as lines:
        assert "services" in str(lines.ask("recent", limit=1)["messages"][0]["body"])
    assert (system(hive), hive.running("coder")) == (current, run)


def test_rollback_boots_the_system_before(hive: HiveProcess):
    one = system(hive)
    id = propose(hive, agent_nix=SERVICE % "two")
    assert hive.event("Rebuilt", approval_id=id)["ok"] is True
    eventually(lambda: beacon(hive) == "two", "the second service has started")
    hive.run("rollback", "coder")
    eventually(lambda: system(hive) == one, "the first system is back")
    eventually(lambda: beacon(hive) == "one", "and its service runs")


def test_agent_outlives_the_daemon(hive: HiveProcess):
    before = hive.running("coder")
    hive.kill()
    hive.up()
    hive.becomes_whole()
    assert hive.running("coder") == before


def test_old_template_is_migrated_once_and_boots(hive: HiveProcess):
    id = propose(hive, flake_nix=OLD_FLAKE, agent_nix="{ pkgs, ... }: { environment.systemPackages = [ pkgs.git ]; }\n")
    assert hive.event("Rebuilt", approval_id=id)["ok"] is True
    hive.down()
    hive.up()
    hive.becomes_whole()
    flake = subprocess.run(
        ["git", f"--git-dir={hive.paths.applied('coder')}/.git", "show", "main:flake.nix"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "_module.args.flakeInputs" in flake
    eventually(lambda: hive.running("coder") is not None, "it runs on the migrated configuration")
    assert {path.name for path in (system(hive) / "sw/bin").iterdir()} == {"git"}
