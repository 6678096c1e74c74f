"""A hive is lost; another takes its agents over from the replica; the lost one, back again, runs none of them."""

import threading

import pytest
from system.hive_process import HiveProcess, eventually

from hive.errors import HiveError
from hive.runtimes.record import Record

from .servers import Server, swarm

pytestmark = pytest.mark.system


def test_agents_of_a_lost_hive_run_in_the_adopting_one_alone() -> None:
    """One story, because a hive counts as lost only after 20 seconds."""
    with swarm("tokyo", "berlin") as (server, hives):
        tokyo, berlin = hives["tokyo"], hives["berlin"]
        furnish(tokyo, berlin)
        assert "berlin is not lost" in tokyo.try_run("swarm", "adopt", "berlin").stderr
        lose(berlin)
        adopt_and_be_killed_at_each_step(tokyo)
        check_adopted(tokyo)
        come_back_without_the_swarm(server, berlin)
        server.start()
        for name in ("coder", "smith"):
            berlin.event("Destroyed", agent=name)
        assert not [event for event in berlin.events("Started", agent="coder") if event["reason"] != "spawn"]
        names = [row["name"] for row in berlin.ask("state")["state"]["agents"]]
        assert sorted(names) == ["manager", "taken"]
        for name in ("coder", "smith"):
            assert berlin.running(name) is None
        assert tokyo.running("coder") is not None
        assert "coder is in tokyo now" in berlin.try_run("revive", "coder").stderr
        for hive in (tokyo, berlin):
            hive.check_files()


def furnish(tokyo: HiveProcess, berlin: HiveProcess) -> None:
    """Berlin has an agent with a note and a message, a stopped one, and one whose name is taken in Tokyo."""
    tokyo.spawn("taken")
    berlin.spawn("coder", "smith", "taken")
    berlin.ask("stop", scope={"agent_names": ["smith"]}, graceful=False)
    (berlin.paths.agent_state("coder") / "notes.md").write_text("Remember.\n")
    berlin.ask("send", to="coder", body="waits for it")
    head = berlin.head()
    eventually(lambda: berlin.data("swarm", "status").get("shipped", 0) >= head, "a whole replica")
    eventually(lambda: log_of(berlin).count("snapshot.uploaded") >= 3, "snapshots of the files")


def lose(hive: HiveProcess) -> None:
    """The daemon and all containers end at once, as with their host."""
    hive.kill()
    for record in hive.paths.run.glob("records/*"):
        Record(record).kill()


def adopt_and_be_killed_at_each_step(tokyo: HiveProcess) -> None:
    def begun() -> bool:
        done = tokyo.try_run("swarm", "adopt", "berlin")
        assert done.returncode == 0 or "is not lost" in done.stderr or "ended" in done.stderr, done.stderr
        return bool(tokyo.events("AdoptionBegun"))

    adopting = threading.Thread(target=lambda: eventually(begun, "the adoption"))
    adopting.start()
    for step in ("AdoptionBegun", "Adopted", "AdoptionEnded"):
        tokyo.event(step)
        tokyo.kill()
        tokyo.up()
    adopting.join()


def check_adopted(tokyo: HiveProcess) -> None:
    eventually(lambda: tokyo.running("coder") is not None, "the agent runs in the adopting hive")
    assert (tokyo.paths.agent_state("coder") / "notes.md").read_text() == "Remember.\n"
    assert tokyo.events("MessageSent", to="coder", body="waits for it")[0]["from"].endswith("@berlin")
    assert [event["agent"] for event in tokyo.events("Adopted")] == ["coder", "smith"]
    assert tokyo.event("Adopted", agent="coder")["epoch"] == 1
    assert len(tokyo.events("AdoptionBegun")) == len(tokyo.events("AdoptionEnded")) == 1
    eventually(lambda: not tokyo.row("smith").get("transient"), "it is at rest")
    assert tokyo.running("smith") is None, "it was stopped there"
    assert not tokyo.events("Adopted", agent="taken")


def come_back_without_the_swarm(server: Server, berlin: HiveProcess) -> None:
    """A hive that cannot know whether its agents were adopted starts none, until its operator says so."""
    server.kill()
    berlin.up()
    eventually(lambda: berlin.running("manager") is not None, "its manager is never adopted, and runs")
    assert "may have been adopted" in eventually(lambda: berlin.row("coder").get("held"), "it waits")
    with pytest.raises(HiveError, match="may have been adopted"):
        berlin.ask("start", scope={"agent_names": ["coder"]})
    assert "may have been adopted" in berlin.run("status")
    berlin.run("start", "taken", "--without-swarm")
    assert berlin.running("taken") is not None
    assert berlin.running("coder") is None


def log_of(hive: HiveProcess) -> str:
    return hive.output.read_text()
