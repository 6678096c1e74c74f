"""A change of configuration from the manager's commit to the running agent, and every way it can fail."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hive.config.proposals import Proposals
from hive.config.repositories import Repositories
from hive.sockets.client import Declined

from .conftest import MakeHive
from .hive_process import HiveProcess, Lines, eventually

pytestmark = pytest.mark.system

SLOW = "build = 'while [ ! -e {go} ]; do sleep 0.02; done'\n"


class Story:
    """One hive with an agent `coder`, and what its manager and operator do."""

    def __init__(self, hive: HiveProcess) -> None:
        self.hive = hive
        hive.spawn("coder")
        hive.event("Spawned", agent="coder")
        self.proposed = hive.paths.proposed("coder")
        self.repositories = Repositories(hive.paths)
        self.proposals = Proposals(hive.paths, self.repositories)

    def git(self, *args: str) -> str:
        # The folder's owner may be mapped: nobody's hooks matter in a test.
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
        """Returns the row once what was approved has been carried out."""
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
        return {kind for kind in kinds if self.proposals.marked("coder", id, kind) is not None}  # type: ignore[arg-type]

    def told(self, event: str) -> list[dict[str, Any]]:
        """What `system` told the manager."""
        with self.manager() as lines:
            rows = lines.ask("recent", limit=100)["messages"]
        bodies = [json.loads(row["body"]) for row in rows if row["from"] == "system"]
        return [body for body in bodies if body.get("event") == event]


@pytest.fixture
def story(hive: HiveProcess) -> Story:
    return Story(hive)


def test_an_approved_change_is_built_deployed_and_running(story: Story):
    sha = story.commit(prompt_md="You write code.")
    id = story.request(sha[:9])
    row = story.row(id)
    assert (row["status"], row["fetched_sha"], row["commit_ref"]) == ("pending", sha, sha[:9])
    assert "+You write code." in story.hive.ask("diff", id=id)["diff"]
    story.git("commit", "--quiet", "--amend", "-m", "moved")
    before = story.hive.head()
    assert story.approve(id)["status"] == "approved"
    assert story.tags(id) == {"proposal", "approved", "building", "deployed"}
    assert story.repositories.main("coder") == sha
    rebuilt = story.hive.event("Rebuilt", agent="coder")
    assert (rebuilt["ok"], rebuilt["revision"], rebuilt["approval_id"]) == (True, sha, id)
    started = story.hive.event("Started", first=before, agent="coder")
    assert (started["reason"], started["revision"]) == ("deploy", sha)
    assert (story.hive.paths.generations("coder") / sha / "prompt.md").read_text() == "You write code."
    assert [body["status"] for body in story.told("approval_resolved")] == ["approved"]
    eventually(lambda: sha in (story.hive.paths.meta / "flake.nix").read_text(), "the meta flake follows")
    badges = story.hive.events("TransientSet", "TransientCleared", agent="coder")
    at_the_end = [badge for badge in badges if badge["seq"] < rebuilt["seq"]][-1]
    assert (at_the_end["type"], at_the_end["kind"]) == ("TransientSet", "rebuilding"), "the badge shows all the while"
    assert not story.hive.events("NeedsUpdate")
    story.hive.becomes_whole()


def test_a_build_behind_walls_has_a_uid_that_no_agent_has(make_hive: MakeHive, walls: str):
    story = Story(make_hive(runtime=walls).up())
    sha = story.commit(agent_toml="build = 'id -u > who'\n")
    assert story.approve(story.request())["status"] == "approved"
    uid = int((story.hive.paths.generations("coder") / sha / "who").read_text())
    running = eventually(lambda: story.hive.running("coder"), "the agent runs")
    its_own = Path(f"/proc/{running.pid}").stat().st_uid
    assert uid not in (0, its_own) if os.geteuid() == 0 else uid == its_own
    assert (story.hive.paths.generations("coder") / sha / "who").stat().st_uid == os.geteuid()


def test_a_broken_change_fails_and_the_old_goes_on(story: Story):
    before = len(story.hive.events("Started", agent="coder")), story.repositories.main("coder")
    id = story.request(story.commit(agent_toml="modell = 'x'\n"))
    row = story.approve(id)
    assert row["status"] == "failed"
    assert "agent.toml:1: modell: unknown key" in row["note"]
    assert story.tags(id) == {"proposal", "approved", "building", "failed"}
    assert "did you mean model" in (story.proposals.note_of("coder", id, "failed") or "")
    assert (len(story.hive.events("Started", agent="coder")), story.repositories.main("coder")) == before
    assert sorted(body["status"] for body in story.told("approval_resolved")) == ["approved", "failed"]
    id = story.request(story.commit(agent_toml="build = 'echo no compiler; false'\n"))
    assert "no compiler" in story.approve(id)["note"]
    story.hive.becomes_whole()


def test_what_cannot_be_fetched_is_failed_and_never_pending(story: Story):
    with story.manager() as lines:
        for ref in ("nope", "--upload-pack=x", "0" * 40):
            reply = lines.say("request_apply_commit", agent="coder", commit_ref=ref)
            assert not reply["ok"] and "The request failed" in reply["error"]
        assert not lines.say("request_apply_commit", agent="ghost", commit_ref="main")["ok"]
    assert story.hive.ask("pending")["approvals"] == []
    assert {row["status"] for row in story.hive.ask("approvals")["approvals"]} == {"failed"}


def test_deny_and_cancel_leave_everything_as_it_is(story: Story):
    main = story.repositories.main("coder")
    denied, cancelled = story.request(story.commit(prompt_md="one")), story.request(story.commit(prompt_md="two"))
    story.hive.ask("deny", id=denied, note="not before Monday")
    with story.manager() as lines:
        lines.ask("cancel_request", id=cancelled)
    eventually(lambda: story.tags(denied) == {"proposal", "denied"}, "the tag")
    assert story.proposals.note_of("coder", denied, "denied") == "not before Monday"
    assert [story.row(id)["status"] for id in (denied, cancelled)] == ["denied", "cancelled"]
    for id in (denied, cancelled):
        with pytest.raises(Declined, match="already"):
            story.hive.ask("approve", id=id)
    assert story.repositories.main("coder") == main
    notes = {body["note"] for body in story.told("approval_resolved")}
    assert notes == {"withdrawn by manager", "not before Monday"}


def test_a_stale_or_moved_proposal_is_refused_and_stays_pending(story: Story):
    base = story.git("rev-parse", "HEAD")
    first = story.request(story.commit(prompt_md="one"))
    story.git("checkout", "--quiet", "-b", "other", base)
    second = story.request(story.commit(agent_toml="model = 'opus'\n"))
    assert story.approve(first)["status"] == "approved"
    with pytest.raises(Declined, match="silently undo"):
        story.hive.ask("approve", id=second)
    assert story.row(second)["status"] == "pending"
    assert story.hive.ask("diff", id=second)["stale"]
    story.git("pull", "--quiet", "--no-rebase", "--no-edit", "applied", "main")
    third = story.request("other")
    story.repositories.applied("coder").run("update-ref", f"refs/tags/proposal/{third}", base)
    with pytest.raises(Declined, match="points at"):
        story.hive.ask("approve", id=third)
    with pytest.raises(Declined, match="look at its diff again"):
        story.hive.ask("approve", id=second, sha=base)


def test_the_operator_edits_and_rolls_back(story: Story):
    first = story.repositories.main("coder")
    files = [{"path": "prompt.md", "text": "edited"}, {"path": "agent.nix", "text": None}]
    reply = story.hive.ask("edit", name="coder", base=first, files=files)
    assert (
        story.hive.event("Rebuilt", revision=reply["revision"])["revision"]
        == reply["revision"]
        == story.repositories.main("coder")
    )
    assert set(story.repositories.files("coder", reply["revision"])) == {"prompt.md", "agent.toml", "flake.nix"}
    assert story.tags(reply["id"]) == {"proposal", "approved", "building", "deployed"}
    with pytest.raises(Declined, match="edit again"):
        story.hive.ask("edit", name="coder", base=first, files=files)
    with pytest.raises(Declined, match="not TOML"):
        story.hive.ask("edit", name="coder", files=[{"path": "agent.toml", "text": "x"}])
    back = story.hive.ask("rollback", name="coder")
    assert "agent.nix" in story.repositories.files("coder", back["revision"])
    assert story.hive.events("Started", agent="coder")[-1]["revision"] == back["revision"]
    with pytest.raises(Declined, match="before this one"):
        story.hive.ask("rollback", name="coder")
    done = story.hive.try_run("rollback", "manager")
    assert done.returncode == 1 and "before this one" in done.stderr


def test_a_deploy_waits_for_the_turn_to_end(story: Story):
    id = story.request(story.commit(prompt_md="new"))
    with story.hive.agent("coder") as lines:
        lines.ask("turn_started", model="m")
        story.hive.ask("approve", id=id)
        eventually(lambda: "building" in story.tags(id), "the build has begun")
        eventually(lambda: list(story.hive.paths.generations("coder").glob("[0-9a-f]*"))[1:], "the build is done")
        assert story.row(id)["status"] == "approved"
        assert "deployed" not in story.tags(id)
        lines.ask("turn_ended", result_kind="ok")
    assert story.outcome(id)["status"] == "approved"
    assert "deployed" in story.tags(id)


def test_a_deploy_goes_on_between_two_turns_that_follow_at_once(story: Story):
    id = story.request(story.commit(prompt_md="new"))
    with story.hive.agent("coder") as lines:
        lines.ask("turn_started", model="m")
        story.hive.ask("approve", id=id)
        eventually(lambda: list(story.hive.paths.generations("coder").glob("[0-9a-f]*"))[1:], "the build is done")
        lines.send("turn_ended", result_kind="ok")
        lines.send("turn_started", model="m")
    assert story.outcome(id)["status"] == "approved"
    assert "deployed" in story.tags(id)


DEADLY = "[environment]\nPYTHONHOME = '/nowhere'\n"


def test_a_deploy_whose_agent_does_not_start_is_taken_back(story: Story):
    deployed = story.request(story.commit(prompt_md="one"))
    assert story.approve(deployed)["status"] == "approved"
    story.hive.becomes_whole()
    main, history = story.repositories.main("coder"), story.proposals.history("coder")
    head, kicks = story.hive.head(), len(kicked(story))
    id = story.request(story.commit(agent_toml=DEADLY))
    row = story.approve(id)
    assert row["status"] == "failed" and "does not start on it: exit code 1" in row["note"]
    assert story.tags(id) == {"proposal", "approved", "building", "failed"}
    assert story.proposals.note_of("coder", id, "failed") == row["note"]
    assert (story.repositories.main("coder"), story.proposals.history("coder")) == (main, history)
    assert main in (story.hive.paths.meta / "flake.nix").read_text()
    story.hive.becomes_whole()
    agent = story.hive.replayed().agents.all["coder"]
    assert agent.running and agent.revision == main and not agent.needs_update
    assert not story.hive.events("Rebuilt", first=head, approval_id=id)
    assert len(kicked(story)) == kicks + 1, "one for the old configuration's start, none for the deploy"
    assert [body["status"] for body in story.told("approval_resolved")].count("failed") == 1
    back = story.hive.ask("rollback", name="coder")["revision"]
    assert story.repositories.files("coder", back)["prompt.md"] != b"one", "what never ran is nothing to go back to"


def kicked(story: Story) -> list[dict[str, Any]]:
    sent = [one for one in story.hive.events("MessageSent", to="coder") if one["from"] == "system"]
    return [one for one in sent if json.loads(one["body"])["event"] == "kicked"]


def test_a_daemon_killed_while_a_deploy_is_taken_back_takes_it_back_at_the_next_start(make_hive: MakeHive):
    story = Story(make_hive().up())
    main = story.repositories.main("coder")
    id = story.request(story.commit(agent_toml=DEADLY))
    story.hive.ask("approve", id=id)
    eventually(lambda: story.hive.events("Crashed", agent="coder"), "the agent ends at once")
    story.hive.kill()
    story.hive.up()
    assert story.outcome(id)["status"] == "failed"
    assert story.tags(id) == {"proposal", "approved", "building", "failed"}
    assert story.repositories.main("coder") == main
    story.hive.becomes_whole()
    assert story.hive.replayed().agents.all["coder"].revision == main


def test_deploys_of_one_agent_are_one_after_the_other(story: Story):
    go = story.hive.folder / "go"
    first = story.request(story.commit(agent_toml=SLOW.format(go=go)))
    second = story.request(story.commit(prompt_md="two"))
    story.hive.ask("approve", id=first)
    story.hive.ask("approve", id=second)
    eventually(lambda: "building" in story.tags(first), "the first build")
    assert "building" not in story.tags(second)
    go.touch()
    assert [story.outcome(id)["status"] for id in (first, second)] == ["approved", "approved"]
    story.hive.becomes_whole()


def approved(story: Story, id: int) -> object:
    return story.hive.events("ApprovalResolved", id=id)


def building(story: Story, id: int) -> object:
    return "building" in story.tags(id)


def built(story: Story, id: int) -> object:
    return "deployed" in story.tags(id) or len(list(story.hive.paths.generations("coder").glob("[0-9a-f]*"))) > 1


def moved(story: Story, id: int) -> object:
    return "deployed" in story.tags(id)


def restarted(story: Story, id: int) -> object:
    return story.hive.events("Started", agent="coder", reason="deploy")


@pytest.mark.parametrize("moment", [approved, building, built, moved, restarted])
def test_a_daemon_killed_in_the_middle_of_a_deploy_finishes_it_at_the_next_start(
    make_hive: MakeHive, moment: Callable[[Story, int], object]
):
    story = Story(make_hive().up())
    sha = story.commit(agent_toml="build = 'touch made'\n")
    id = story.request()
    story.hive.ask("approve", id=id)
    eventually(lambda: moment(story, id), "the moment")
    story.hive.kill()
    story.hive.up()
    assert story.outcome(id)["status"] == "approved"
    assert story.tags(id) == {"proposal", "approved", "building", "deployed"}
    assert (story.hive.paths.generations("coder") / sha / "made").exists()
    story.hive.becomes_whole()
    assert story.hive.replayed().agents.all["coder"].revision == sha
    assert len(story.hive.events("Rebuilt", agent="coder", ok=True, approval_id=id)) == 1
    story.hive.check_files()


def test_a_request_cut_off_while_it_was_fetched_is_failed_at_the_next_start(make_hive: MakeHive):
    story = Story(make_hive().up())
    with story.manager() as lines:
        lines.send("request_apply_commit", agent="coder", commit_ref="main")
        story.hive.event("ApprovalRequested", kind="apply_commit")
        story.hive.kill()
    story.hive.up()
    id = story.hive.event("ApprovalRequested", kind="apply_commit")["id"]
    status = "pending" if story.hive.events("ProposalPinned", id=id) else "failed"
    eventually(lambda: story.row(id)["status"] == status, "no row stays pending that nothing was fetched for")


OLD_FLAKE = """{
  inputs.tool.url = "github:owner/tool";
  outputs = { self, ... }: { nixosModules.default = import ./agent.nix; };
}
"""


def test_an_older_template_is_moved_once_at_start(make_hive: MakeHive):
    story = Story(make_hive().up())
    story.hive.ask("edit", name="coder", files=[{"path": "flake.nix", "text": OLD_FLAKE}])
    old = story.repositories.main("coder")
    story.hive.down()
    story.hive.up()
    eventually(lambda: story.repositories.main("coder") != old, "the migration")
    new = story.repositories.main("coder")
    text = story.repositories.files("coder", new)["flake.nix"].decode()
    assert "_module.args.flakeInputs" in text
    assert 'inputs.tool.url = "github:owner/tool";' in text
    assert story.hive.event("TransientSet", kind="migrating", agent="coder")
    story.hive.becomes_whole()
    story.hive.down()
    story.hive.up()
    story.hive.becomes_whole()
    assert story.repositories.main("coder") == new
