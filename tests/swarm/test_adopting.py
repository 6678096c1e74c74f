"""A hive is lost; another takes its agents over from the replica; the lost one, back again, runs none of them."""

import pytest
from system.hive_process import HiveProcess, eventually

from .servers import swarm

pytestmark = pytest.mark.system


def test_agents_of_a_lost_hive_run_in_the_adopting_one_alone() -> None:
    with swarm("tokyo", "berlin") as (_, hives):
        tokyo, berlin = hives["tokyo"], hives["berlin"]
        berlin.spawn("coder")
        (berlin.paths.agent_state("coder") / "notes.md").write_text("Remember.\n")
        berlin.ask("send", to="coder", body="waits for it")
        assert "is not lost" in tokyo.try_run("swarm", "adopt", "berlin").stderr
        head = berlin.head()
        eventually(lambda: berlin.data("swarm", "status").get("shipped", 0) >= head, "a whole replica")
        eventually(lambda: "snapshot" in log_of(berlin), "a snapshot of its files")
        berlin.kill()
        eventually(lambda: tokyo.try_run("swarm", "adopt", "berlin").returncode == 0, "the adoption")
        eventually(lambda: tokyo.running("coder") is not None, "the agent runs in the adopting hive")
        assert (tokyo.paths.agent_state("coder") / "notes.md").read_text() == "Remember.\n"
        assert tokyo.events("MessageSent", to="coder", body="waits for it")[0]["from"].endswith("@berlin")
        assert tokyo.event("Adopted", agent="coder")["source"] == "berlin"
        berlin.up()
        berlin.event("Destroyed", agent="coder")
        eventually(lambda: berlin.running("coder") is None, "the lost hive runs it no more")
        assert not [event for event in berlin.events("Started", agent="coder") if event["reason"] == "boot"]
        assert "coder" not in [row["name"] for row in berlin.ask("state")["state"]["agents"]]
        tokyo.ask("send", to="coder", body="still here?")
        assert tokyo.running("coder") is not None


def log_of(hive: HiveProcess) -> str:
    return hive.output.read_text()
