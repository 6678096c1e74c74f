"""A real agent moves between two real hives, and daemons are killed at each step of it."""

import contextlib
import threading
from collections.abc import Iterator

import pytest
from system.hive_process import HiveProcess, eventually

from hive.errors import HiveError

from .servers import swarm

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def hives() -> Iterator[tuple[HiveProcess, HiveProcess]]:
    with swarm("tokyo", "berlin") as (_, found):
        tokyo, berlin = found["tokyo"], found["berlin"]
        tokyo.spawn("coder")
        yield tokyo, berlin


def runs_in(*hives: HiveProcess) -> list[HiveProcess]:
    """The hives in which a process of the agent is there."""
    return [hive for hive in hives if hive.running("coder") is not None]


def test_agent_moves_with_files_configuration_and_messages(hives: tuple[HiveProcess, HiveProcess]) -> None:
    tokyo, berlin = hives
    (tokyo.paths.agent_state("coder") / "notes.md").write_text("Remember the parser.\n")
    tokyo.configure("coder", 'model = "claude-moved"\n')
    for body in ("first", "second"):
        tokyo.ask("send", to="coder", body=body)
    with tokyo.agent("coder") as coder:
        coder.ask("remind", message="look again", delay_seconds=3_600)
    assert "coder is in berlin now." in tokyo.run("move", "coder", "berlin")
    eventually(lambda: runs_in(tokyo, berlin) == [berlin], "the agent runs there, and only there")
    assert (berlin.paths.agent_state("coder") / "notes.md").read_text() == "Remember the parser.\n"
    assert 'model = "claude-moved"' in berlin.run("config", "coder")
    assert berlin.row("coder")["paused"] is True
    bodies = [event["body"] for event in berlin.events("MessageSent", to="coder")]
    assert [body for body in bodies if body in ("first", "second")] == ["first", "second"]
    assert berlin.events("ReminderSet", agent="coder")[0]["message"] == "look again"
    tokyo.ask("send", to="coder", body="sent to the old address")
    berlin.event("MessageSent", to="coder", body="sent to the old address")
    assert "coder is in berlin now" in tokyo.try_run("revive", "coder").stderr
    for hive in hives:
        hive.check_files()


@pytest.mark.parametrize(
    ("step", "killed"),
    [("MoveBegun", "source"), ("MoveSent", "source"), ("MoveArrived", "target"), ("Moved", "target")],
)
def test_daemon_killed_at_a_step_leaves_one_owner(
    hives: tuple[HiveProcess, HiveProcess], step: str, killed: str
) -> None:
    source, target = (
        hives if "coder" in [row["name"] for row in hives[0].ask("state")["state"]["agents"]] else hives[::-1]
    )
    name = {id(hives[0]): "tokyo", id(hives[1]): "berlin"}[id(target)]
    before = {id(hive): hive.head() for hive in hives}
    victim = source if killed == "source" else target

    def move() -> None:
        with contextlib.suppress(HiveError):
            source.ask("move", name="coder", hive=name)

    moving = threading.Thread(target=move)
    moving.start()
    victim.event(step, first=before[id(victim)] + 1)
    victim.kill()
    victim.up()
    moving.join()
    eventually(lambda: source.events("Moved", first=before[id(source)] + 1), "the source knows")
    eventually(lambda: runs_in(*hives) == [target], "the agent runs in the target alone")
    target.becomes_whole()
    names = [[row["name"] for row in hive.ask("state")["state"]["agents"]] for hive in (source, target)]
    assert ["coder" in one for one in names] == [False, True]


def test_target_refuses_a_taken_name_and_the_agent_stays(hives: tuple[HiveProcess, HiveProcess]) -> None:
    tokyo, berlin = hives
    for hive in hives:
        hive.spawn("painter")
    refused = tokyo.try_run("move", "painter", "berlin")
    assert refused.returncode == 1
    assert 'painter stays here: berlin has an agent or a tombstone "painter"' in refused.stderr
    eventually(lambda: tokyo.running("painter") is not None, "it runs here again")
    assert berlin.running("painter") is not None
