"""Configuration changes from the manager's commit to the running agent, and their failures."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hive.config.git import Git
from hive.config.proposals import Proposals
from hive.config.repositories import Repositories
from hive.sockets.client import Declined

from .conftest import MakeHive
from .hive_process import HiveProcess, Lines, eventually

pytestmark = pytest.mark.system

SLOW = "build = 'while [ ! -e {go} ]; do sleep 0.02; done'\n"


class Deployments:
    """A hive with an agent `coder`, and actions of manager and operator."""

    def __init__(self, hive: HiveProcess) -> None:
        self.hive = hive
        hive.spawn("coder")
        hive.event("Spawned", agent="coder")
        self.proposed = hive.paths.proposed("coder")
        self.repositories = Repositories(hive.paths)
        self.proposals = Proposals(hive.paths, self.repositories)

    def git(self, *args: str) -> str:
        # The folder's owner may be mapped. Hooks do not matter in a test.
        command = ["git", "-c", "safe.directory=*", "-C", str(self.proposed), *args]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()

    def commit(self, **files: str) -> str:
        for name, text in files.items():
            (self.proposed / name.replace("_", ".")).write_text(text)
        self.git("add", "-A")
        self.git("commit", "--quiet", "--allow-empty", "-m", "a change")
        return self.git("rev-parse", "HEAD")

    def manager(self) -> Lines:
        return self.hive.agent("manager")

    def request(self, ref: str = "main") -> int:
        with self.manager() as lines:
            reply = lines.ask("request_apply_commit", agent="coder", commit_ref=ref, description="please")
        assert len(reply["fetched_sha"]) == 40
        id: int = reply["id"]
        return id

    def approve(self, id: int) -> dict[str, Any]:
        """Wait until the approval is finished; returns its row."""
        self.hive.ask("approve", id=id)
        return self.outcome(id)

    def outcome(self, id: int) -> dict[str, Any]:
        def over() -> bool:
            row = self.hive.replayed().approvals.all[id]  # type: ignore[index]
            return row.carried_out

        eventually(over, f"approval {id} is over")
        return self.row(id)

    def row(self, id: int) -> dict[str, Any]:
        rows = {row["id"]: row for row in self.hive.ask("approvals", limit=100)["approvals"]}
        found: dict[str, Any] = rows[id]
        return found

    def tags(self, id: int) -> set[str]:
        kinds = ("proposal", "approved", "building", "deployed", "failed", "denied")
        return {kind for kind in kinds if self.proposals.tagged("coder", id, kind) is not None}  # type: ignore[arg-type]

    def told(self, event: str) -> list[dict[str, Any]]:
        """Notices from `system` to the manager."""
        with self.manager() as lines:
            rows = lines.ask("recent", limit=100)["messages"]
        bodies = [json.loads(row["body"]) for row in rows if row["from"] == "system"]
        return [body for body in bodies if body.get("event") == event]


@pytest.fixture
def deployments(hive: HiveProcess) -> Deployments:
    return Deployments(hive)


def test_approved_change_is_built_and_deployed(deployments: Deployments):
    sha = deployments.commit(prompt_md="You write code.")
    id = deployments.request(sha[:9])
    row = deployments.row(id)
    assert (row["status"], row["fetched_sha"], row["commit_ref"]) == ("pending", sha, sha[:9])
    assert "+You write code." in deployments.hive.ask("diff", id=id)["diff"]
    deployments.git("commit", "--quiet", "--amend", "-m", "moved")
    before = deployments.hive.head()
    assert deployments.approve(id)["status"] == "approved"
    assert deployments.tags(id) == {"proposal", "approved", "building", "deployed"}
    assert deployments.repositories.main("coder") == sha
    rebuilt = deployments.hive.event("Rebuilt", agent="coder")
    assert (rebuilt["ok"], rebuilt["revision"], rebuilt["approval_id"]) == (True, sha, id)
    started = deployments.hive.event("Started", first=before, agent="coder")
    assert (started["reason"], started["revision"]) == ("deploy", sha)
    assert (deployments.hive.paths.generations("coder") / sha / "prompt.md").read_text() == "You write code."
    assert [body["status"] for body in deployments.told("approval_resolved")] == ["approved"]
    eventually(lambda: sha in (deployments.hive.paths.meta / "flake.nix").read_text(), "the meta flake follows")
    badges = deployments.hive.events("TransientSet", "TransientCleared", agent="coder")
    at_the_end = [badge for badge in badges if badge["seq"] < rebuilt["seq"]][-1]
    assert (at_the_end["type"], at_the_end["kind"]) == ("TransientSet", "rebuilding"), (
        "the badge is set during the whole deploy"
    )
    assert not deployments.hive.events("NeedsUpdate")
    deployments.hive.becomes_whole()


def test_sandboxed_build_runs_with_its_own_uid(make_hive: MakeHive, walls: str):
    deployments = Deployments(make_hive(runtime=walls).up())
    sha = deployments.commit(agent_toml="build = 'id -u > who'\n")
    assert deployments.approve(deployments.request())["status"] == "approved"
    uid = int((deployments.hive.paths.generations("coder") / sha / "who").read_text())
    running = eventually(lambda: deployments.hive.running("coder"), "the agent runs")
    its_own = Path(f"/proc/{running.pid}").stat().st_uid
    assert uid not in (0, its_own) if os.geteuid() == 0 else uid == its_own
    assert (deployments.hive.paths.generations("coder") / sha / "who").stat().st_uid == os.geteuid()


def test_failed_build_keeps_the_old_configuration(deployments: Deployments):
    before = len(deployments.hive.events("Started", agent="coder")), deployments.repositories.main("coder")
    id = deployments.request(deployments.commit(agent_toml="modell = 'x'\n"))
    row = deployments.approve(id)
    assert row["status"] == "failed"
    assert "agent.toml:1: modell: unknown key" in row["note"]
    assert deployments.tags(id) == {"proposal", "approved", "building", "failed"}
    assert "did you mean model" in (deployments.proposals.tag_message("coder", id, "failed") or "")
    assert (len(deployments.hive.events("Started", agent="coder")), deployments.repositories.main("coder")) == before
    assert sorted(body["status"] for body in deployments.told("approval_resolved")) == ["approved", "failed"]
    id = deployments.request(deployments.commit(agent_toml="build = 'echo no compiler; false'\n"))
    assert "no compiler" in deployments.approve(id)["note"]
    deployments.hive.becomes_whole()


def test_erased_note_and_error_leave_no_tag_object_behind(deployments: Deployments):
    hive, secret = deployments.hive, "sk-tag-7171-secret"
    denied = deployments.request(deployments.commit(agent_toml="model = 'm1'\n"))
    hive.run("deny", str(denied), "--note", f"not with {secret}")
    failed = deployments.request(
        deployments.commit(agent_toml=f"build = 'echo {secret[:6]}; echo {secret[6:]}; false'\n")
    )
    assert secret[6:] in deployments.approve(failed)["note"]
    git = Git(hive.paths.applied("coder") / ".git")
    eventually(lambda: {"denied"} <= deployments.tags(denied) and {"failed"} <= deployments.tags(failed), "both tags")

    def objects(kind: str) -> list[bytes]:
        listed = git.text("cat-file", "--batch-all-objects", "--batch-check").splitlines()
        return [git.run("cat-file", kind, line.split()[0]) for line in listed if line.split()[1] == kind]

    assert any(secret.encode() in one for one in objects("tag"))
    hive.run("erase", "approval", str(denied), "--why", "a key", "--yes")
    git.run("repack", "-a", "-d", "--quiet")
    assert any(secret[6:].encode() in one for one in objects("tag"))
    hive.run("erase", "approval", str(failed), "--why", "a key", "--yes")
    assert not any(secret[6:].encode() in one for one in objects("tag"))
    assert deployments.proposals.tag_message("coder", denied, "denied") == "[erased]"
    assert deployments.proposals.tag_message("coder", failed, "failed") == "[erased]"
    git.run("fsck", "--full", "--strict")
    hive.becomes_whole()


def test_failed_fetch_is_never_pending(deployments: Deployments):
    with deployments.manager() as lines:
        for ref in ("nope", "--upload-pack=x", "0" * 40):
            reply = lines.say("request_apply_commit", agent="coder", commit_ref=ref)
            assert not reply["ok"] and "The request failed" in reply["error"]
        assert not lines.say("request_apply_commit", agent="ghost", commit_ref="main")["ok"]
    assert deployments.hive.ask("pending")["approvals"] == []
    assert {row["status"] for row in deployments.hive.ask("approvals")["approvals"]} == {"failed"}


def test_deny_and_cancel_change_nothing(deployments: Deployments):
    main = deployments.repositories.main("coder")
    denied, cancelled = (
        deployments.request(deployments.commit(prompt_md="one")),
        deployments.request(deployments.commit(prompt_md="two")),
    )
    deployments.hive.ask("deny", id=denied, note="not before Monday")
    with deployments.manager() as lines:
        lines.ask("cancel_request", id=cancelled)
    eventually(lambda: deployments.tags(denied) == {"proposal", "denied"}, "the tag")
    assert deployments.proposals.tag_message("coder", denied, "denied") == "not before Monday"
    assert [deployments.row(id)["status"] for id in (denied, cancelled)] == ["denied", "cancelled"]
    for id in (denied, cancelled):
        with pytest.raises(Declined, match="already"):
            deployments.hive.ask("approve", id=id)
    assert deployments.repositories.main("coder") == main
    notes = {body["note"] for body in deployments.told("approval_resolved")}
    assert notes == {"withdrawn by manager", "not before Monday"}


def test_stale_or_moved_proposal_is_refused_and_stays_pending(deployments: Deployments):
    base = deployments.git("rev-parse", "HEAD")
    first = deployments.request(deployments.commit(prompt_md="one"))
    deployments.git("checkout", "--quiet", "-b", "other", base)
    second = deployments.request(deployments.commit(agent_toml="model = 'opus'\n"))
    assert deployments.approve(first)["status"] == "approved"
    with pytest.raises(Declined, match="silently undo"):
        deployments.hive.ask("approve", id=second)
    assert deployments.row(second)["status"] == "pending"
    assert deployments.hive.ask("diff", id=second)["stale"]
    deployments.git("pull", "--quiet", "--no-rebase", "--no-edit", "applied", "main")
    third = deployments.request("other")
    deployments.repositories.applied("coder").run("update-ref", f"refs/tags/proposal/{third}", base)
    with pytest.raises(Declined, match="points at"):
        deployments.hive.ask("approve", id=third)
    with pytest.raises(Declined, match="look at its diff again"):
        deployments.hive.ask("approve", id=second, sha=base)


def test_operator_edits_and_rolls_back(deployments: Deployments):
    first = deployments.repositories.main("coder")
    files = [{"path": "prompt.md", "text": "edited"}, {"path": "agent.nix", "text": None}]
    reply = deployments.hive.ask("edit", name="coder", base=first, files=files)
    assert (
        deployments.hive.event("Rebuilt", revision=reply["revision"])["revision"]
        == reply["revision"]
        == deployments.repositories.main("coder")
    )
    assert set(deployments.repositories.files("coder", reply["revision"])) == {"prompt.md", "agent.toml", "flake.nix"}
    assert deployments.tags(reply["id"]) == {"proposal", "approved", "building", "deployed"}
    with pytest.raises(Declined, match="edit again"):
        deployments.hive.ask("edit", name="coder", base=first, files=files)
    with pytest.raises(Declined, match="not TOML"):
        deployments.hive.ask("edit", name="coder", files=[{"path": "agent.toml", "text": "x"}])
    back = deployments.hive.ask("rollback", name="coder")
    assert "agent.nix" in deployments.repositories.files("coder", back["revision"])
    assert deployments.hive.events("Started", agent="coder")[-1]["revision"] == back["revision"]
    with pytest.raises(Declined, match="before this one"):
        deployments.hive.ask("rollback", name="coder")
    done = deployments.hive.try_run("rollback", "manager")
    assert done.returncode == 1 and "before this one" in done.stderr


def test_deploy_waits_for_the_end_of_the_turn(deployments: Deployments):
    id = deployments.request(deployments.commit(prompt_md="new"))
    with deployments.hive.agent("coder") as lines:
        lines.ask("turn_started", model="m")
        deployments.hive.ask("approve", id=id)
        eventually(lambda: "building" in deployments.tags(id), "the build has begun")
        eventually(lambda: list(deployments.hive.paths.generations("coder").glob("[0-9a-f]*"))[1:], "the build is done")
        assert deployments.row(id)["status"] == "approved"
        assert "deployed" not in deployments.tags(id)
        lines.ask("turn_ended", result_kind="ok")
    assert deployments.outcome(id)["status"] == "approved"
    assert "deployed" in deployments.tags(id)


def test_deploy_runs_between_consecutive_turns(deployments: Deployments):
    id = deployments.request(deployments.commit(prompt_md="new"))
    with deployments.hive.agent("coder") as lines:
        lines.ask("turn_started", model="m")
        deployments.hive.ask("approve", id=id)
        eventually(lambda: list(deployments.hive.paths.generations("coder").glob("[0-9a-f]*"))[1:], "the build is done")
        lines.send("turn_ended", result_kind="ok")
        lines.send("turn_started", model="m")
    assert deployments.outcome(id)["status"] == "approved"
    assert "deployed" in deployments.tags(id)


DEADLY = "[environment]\nPYTHONHOME = '/nowhere'\n"


def test_deploy_is_rolled_back_when_the_agent_does_not_start(deployments: Deployments):
    deployed = deployments.request(deployments.commit(prompt_md="one"))
    assert deployments.approve(deployed)["status"] == "approved"
    deployments.hive.becomes_whole()
    main, history = deployments.repositories.main("coder"), deployments.proposals.history("coder")
    head, kicks = deployments.hive.head(), len(kicked(deployments))
    id = deployments.request(deployments.commit(agent_toml=DEADLY))
    row = deployments.approve(id)
    assert row["status"] == "failed" and "does not start on it: exit code 1" in row["note"]
    assert deployments.tags(id) == {"proposal", "approved", "building", "failed"}
    assert deployments.proposals.tag_message("coder", id, "failed") == row["note"]
    assert (deployments.repositories.main("coder"), deployments.proposals.history("coder")) == (main, history)
    assert main in (deployments.hive.paths.meta / "flake.nix").read_text()
    deployments.hive.becomes_whole()
    agent = deployments.hive.replayed().agents.all["coder"]
    assert agent.running and agent.revision == main and not agent.needs_update
    assert not deployments.hive.events("Rebuilt", first=head, approval_id=id)
    assert len(kicked(deployments)) == kicks + 1, "one kick for the start on the old configuration, none for the deploy"
    assert [body["status"] for body in deployments.told("approval_resolved")].count("failed") == 1
    back = deployments.hive.ask("rollback", name="coder")["revision"]
    assert deployments.repositories.files("coder", back)["prompt.md"] != b"one", (
        "rollback skips configurations that never ran"
    )


def kicked(deployments: Deployments) -> list[dict[str, Any]]:
    sent = [one for one in deployments.hive.events("MessageSent", to="coder") if one["from"] == "system"]
    return [one for one in sent if json.loads(one["body"])["event"] == "kicked"]


def test_interrupted_rollback_is_finished_at_the_next_start(make_hive: MakeHive):
    deployments = Deployments(make_hive().up())
    main = deployments.repositories.main("coder")
    id = deployments.request(deployments.commit(agent_toml=DEADLY))
    deployments.hive.ask("approve", id=id)
    eventually(lambda: deployments.hive.events("Crashed", agent="coder"), "the agent ends at once")
    deployments.hive.kill()
    deployments.hive.up()
    assert deployments.outcome(id)["status"] == "failed"
    assert deployments.tags(id) == {"proposal", "approved", "building", "failed"}
    assert deployments.repositories.main("coder") == main
    deployments.hive.becomes_whole()
    assert deployments.hive.replayed().agents.all["coder"].revision == main


def test_deploys_of_one_agent_run_one_at_a_time(deployments: Deployments):
    go = deployments.hive.folder / "go"
    first = deployments.request(deployments.commit(agent_toml=SLOW.format(go=go)))
    second = deployments.request(deployments.commit(prompt_md="two"))
    deployments.hive.ask("approve", id=first)
    deployments.hive.ask("approve", id=second)
    eventually(lambda: "building" in deployments.tags(first), "the first build")
    assert "building" not in deployments.tags(second)
    go.touch()
    assert [deployments.outcome(id)["status"] for id in (first, second)] == ["approved", "approved"]
    deployments.hive.becomes_whole()


def approved(deployments: Deployments, id: int) -> object:
    return deployments.hive.events("ApprovalResolved", id=id)


def building(deployments: Deployments, id: int) -> object:
    return "building" in deployments.tags(id)


def built(deployments: Deployments, id: int) -> object:
    return (
        "deployed" in deployments.tags(id)
        or len(list(deployments.hive.paths.generations("coder").glob("[0-9a-f]*"))) > 1
    )


def moved(deployments: Deployments, id: int) -> object:
    return "deployed" in deployments.tags(id)


def restarted(deployments: Deployments, id: int) -> object:
    return deployments.hive.events("Started", agent="coder", reason="deploy")


@pytest.mark.parametrize("moment", [approved, building, built, moved, restarted])
def test_interrupted_deploy_is_finished_at_the_next_start(
    make_hive: MakeHive, moment: Callable[[Deployments, int], object]
):
    deployments = Deployments(make_hive().up())
    sha = deployments.commit(agent_toml="build = 'touch made'\n")
    id = deployments.request()
    deployments.hive.ask("approve", id=id)
    eventually(lambda: moment(deployments, id), "the moment")
    deployments.hive.kill()
    deployments.hive.up()
    assert deployments.outcome(id)["status"] == "approved"
    assert deployments.tags(id) == {"proposal", "approved", "building", "deployed"}
    assert (deployments.hive.paths.generations("coder") / sha / "made").exists()
    deployments.hive.becomes_whole()
    assert deployments.hive.replayed().agents.all["coder"].revision == sha
    assert len(deployments.hive.events("Rebuilt", agent="coder", ok=True, approval_id=id)) == 1
    deployments.hive.check_files()


def test_interrupted_fetch_is_failed_at_the_next_start(make_hive: MakeHive):
    deployments = Deployments(make_hive().up())
    with deployments.manager() as lines:
        lines.send("request_apply_commit", agent="coder", commit_ref="main")
        deployments.hive.event("ApprovalRequested", kind="apply_commit")
        deployments.hive.kill()
    deployments.hive.up()
    id = deployments.hive.event("ApprovalRequested", kind="apply_commit")["id"]
    status = "pending" if deployments.hive.events("ProposalPinned", id=id) else "failed"
    eventually(lambda: deployments.row(id)["status"] == status, "no row is pending without a fetched commit")


OLD_FLAKE = """{
  inputs.tool.url = "github:owner/tool";
  outputs = { self, ... }: { nixosModules.default = import ./agent.nix; };
}
"""


def test_old_template_is_migrated_once_at_start(make_hive: MakeHive):
    deployments = Deployments(make_hive().up())
    deployments.hive.ask("edit", name="coder", files=[{"path": "flake.nix", "text": OLD_FLAKE}])
    old = deployments.repositories.main("coder")
    deployments.hive.down()
    deployments.hive.up()
    eventually(lambda: deployments.repositories.main("coder") != old, "the migration")
    new = deployments.repositories.main("coder")
    text = deployments.repositories.files("coder", new)["flake.nix"].decode()
    assert "_module.args.flakeInputs" in text
    assert 'inputs.tool.url = "github:owner/tool";' in text
    assert deployments.hive.event("TransientSet", kind="migrating", agent="coder")
    deployments.hive.becomes_whole()
    deployments.hive.down()
    deployments.hive.up()
    deployments.hive.becomes_whole()
    assert deployments.repositories.main("coder") == new
