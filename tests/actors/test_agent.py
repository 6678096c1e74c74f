"""An agent's actor with real processes: what is asked for is done, recorded, kicked once, and found again."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pykka
import pytest

from hive.actors.agent import ContainerEnded, Do, Ticket
from hive.deciders.approvals import Approve, Pin, RequestCommit
from hive.deciders.axes import ReportLogin
from hive.deciders.lifecycle import CRASHES_MAX, RESTART_FIRST_MS, BeginAct, RecordRebuilt
from hive.deciders.messages import Recv, Send
from hive.errors import HiveError, NotYours, Unavailable
from hive.events.agents import Act
from hive.events.base import agent
from hive.names import OPERATOR
from hive.runtimes.protocol import Ended, Exit

from .containers import Containers
from .stage import DAEMON_BY, OPERATOR_BY, Stage, eventually

ENDS_AT_ONCE = "exit 3"


@pytest.fixture
def containers(tmp_path: Path, stage: Stage) -> Iterator[Containers]:
    one = Containers(tmp_path, stage)
    yield one
    one.close()


@pytest.fixture
def coder(containers: Containers) -> "pykka.ActorRef[object]":
    return containers.spawned()


def begun(containers: Containers, act: Act, *, purge: bool = False) -> None:
    """An act that a daemon decided before it died."""
    containers.stage.ask(BeginAct(by=OPERATOR_BY, agent="coder", act=act, purge=purge))


def types_after(stage: Stage, count: int) -> list[str]:
    return stage.types()[count:]


# One act after another


def test_a_spawned_agent_runs_and_is_not_kicked(containers: Containers, coder: object, stage: Stage) -> None:
    assert stage.types() == ["AgentAdded", "TransientSet", "Started", "Spawned", "TransientCleared"]
    assert containers.runs()
    assert containers.kicks() == []
    row = containers.row()
    assert (row.running, row.spawned, row.act, row.failure) == (True, True, None, None)
    assert row.revision == containers.repositories.main("coder")


def test_a_stopped_agent_is_started_and_kicked_once(
    containers: Containers, coder: "pykka.ActorRef[object]", stage: Stage
) -> None:
    before = len(stage.rows())
    containers.do(coder, "stop")
    assert not containers.runs()
    assert types_after(stage, before) == ["ActDecided", "TransientSet", "Stopped", "TransientCleared"]
    containers.do(coder, "stop")
    containers.do(coder, "start")
    containers.do(coder, "start")
    assert containers.runs()
    assert containers.kicks() == ["start"]


def test_a_restart_is_another_run_and_one_kick(containers: Containers, coder: "pykka.ActorRef[object]") -> None:
    before = containers.row().incarnation
    containers.do(coder, "restart")
    assert containers.runs()
    assert containers.row().incarnation != before
    assert containers.kicks() == ["restart"]
    containers.do(coder, "stop")
    containers.do(coder, "restart")
    assert containers.kicks() == ["restart", "restart"]


def test_a_killed_agent_stays_down_and_the_manager_hears_of_it(
    containers: Containers, coder: "pykka.ActorRef[object]", stage: Stage
) -> None:
    containers.do(coder, "kill")
    assert not containers.runs()
    assert stage.types()[-3:] == ["Killed", "MessageSent", "TransientCleared"]
    with pytest.raises(HiveError, match="not running"):
        containers.do(coder, "kill")
    assert containers.kicks() == []


def test_a_rebuild_runs_the_wanted_commit_and_kicks_once(
    containers: Containers, coder: "pykka.ActorRef[object]", stage: Stage
) -> None:
    wanted = containers.apply({"prompt.md": b"Be brief.\n"})
    containers.do(coder, "rebuild")
    assert containers.row().revision == wanted
    assert containers.kicks() == ["rebuild"]
    assert "Rebuilt" in stage.types()


def test_a_stopped_agent_is_rebuilt_without_being_started(
    containers: Containers, coder: "pykka.ActorRef[object]", stage: Stage
) -> None:
    containers.do(coder, "stop")
    containers.do(coder, "rebuild")
    assert not containers.runs()
    assert stage.types()[-3:] == ["Rebuilt", "MessageSent", "TransientCleared"]
    assert containers.kicks() == []


def test_a_destroyed_agent_leaves_its_state_and_a_purged_one_nothing(containers: Containers) -> None:
    containers.do(containers.spawned("coder"), "destroy", "coder")
    assert not containers.runs()
    assert containers.paths.agent_state("coder").is_dir()
    containers.do(containers.spawned("tester"), "destroy", "tester", purge=True)
    assert not containers.paths.agent("tester").exists()
    assert not containers.paths.applied("tester").exists()
    rows = containers.stage.client.read(lambda hive: [row.name for row in hive.agents.all])
    assert rows == ["coder"]


def test_acts_queue_behind_each_other(containers: Containers, coder: "pykka.ActorRef[object]", stage: Stage) -> None:
    before, tickets = len(stage.rows()), []
    for act in ("stop", "start", "restart", "kill"):
        ticket = Ticket()
        coder.tell(Do(agent="coder", act=act, by=OPERATOR_BY, ticket=ticket))  # type: ignore[arg-type]
        tickets.append(ticket)
    for ticket in tickets:
        ticket.result(60)
    story = [name for name in types_after(stage, before) if not name.startswith(("Transient", "Message"))]
    decided = "ActDecided"
    assert story == [decided, "Stopped", decided, "Started", decided, "Stopped", "Started", decided, "Killed"]


def test_an_agent_cannot_act_on_itself(containers: Containers, coder: "pykka.ActorRef[object]", stage: Stage) -> None:
    before = len(stage.rows())
    with pytest.raises(NotYours):
        containers.stage.ask(BeginAct(by=agent("coder"), agent="coder", act="kill"))
    assert types_after(stage, before) == []


def test_what_an_agent_was_working_on_waits_for_its_next_run(
    containers: Containers, coder: "pykka.ActorRef[object]", stage: Stage
) -> None:
    stage.ask(Send(by=OPERATOR_BY, sender=OPERATOR, to="coder", body="work"))
    stage.ask(Recv(by=agent("coder"), agent="coder", incarnation="one"))
    containers.do(coder, "restart")
    (first, *_) = stage.client.read(lambda hive: hive.messages.waiting("coder"))
    assert (first.body, first.redelivered, first.failures) == ("work", True, 0)


# What does not work


@pytest.mark.parametrize("act", ["start", "restart", "rebuild"])
def test_an_act_that_fails_is_answered_recorded_and_kicks_nobody(
    containers: Containers, coder: "pykka.ActorRef[object]", stage: Stage, act: Act
) -> None:
    containers.do(coder, "stop")
    containers.apply({"agent.toml": b"model = 3\n"})
    with pytest.raises(HiveError, match=r"agent\.toml"):
        containers.do(coder, act)
    assert not containers.runs()
    assert "ActFailed" in stage.types()
    assert stage.types()[-1] == "TransientCleared"
    row = containers.row()
    assert row.act is None
    assert row.failure is not None
    assert containers.kicks() == []
    assert coder.is_alive()


def test_a_spawn_that_fails_can_be_done_again(containers: Containers, stage: Stage) -> None:
    containers.paths.state.mkdir(parents=True)
    containers.paths.all_applied.write_text("in the way")
    with pytest.raises(Unavailable):
        containers.spawned()
    assert not containers.row().spawned
    containers.paths.all_applied.unlink()
    ref = containers.actor("coder")
    containers.do(ref, "start")
    assert containers.row().spawned
    assert containers.kicks() == []


def test_an_actor_that_stops_answers_those_who_wait(containers: Containers, coder: "pykka.ActorRef[object]") -> None:
    tickets = [Ticket() for _ in range(5)]
    for ticket in tickets:
        coder.tell(Do(agent="coder", act="restart", by=OPERATOR_BY, ticket=ticket))
    coder.tell("not a message of its own")
    coder.stop(block=False)
    late = Ticket()
    if coder.is_alive():
        coder.tell(Do(agent="coder", act="restart", by=OPERATOR_BY, ticket=late))
        tickets.append(late)
    outcomes = [ticket.exception(60) for ticket in tickets]
    assert all(outcome is None or isinstance(outcome, Unavailable) for outcome in outcomes)


# Crashes


def test_a_crash_is_recorded_backs_off_and_is_restarted_with_a_kick(
    containers: Containers, coder: "pykka.ActorRef[object]", stage: Stage
) -> None:
    containers.runtime.kill(containers.paths.record("coder"))
    containers.tell_of_the_end(coder)
    eventually(lambda: "Crashed" in stage.types(), "the crash is recorded")
    assert containers.row().failure == "signal 9 (SIGKILL)"
    eventually(lambda: stage.hand.waits_for() is not None, "the restart waits")
    stage.hand.advance(RESTART_FIRST_MS - 1)
    assert not containers.row().running
    stage.hand.advance(1)
    eventually(lambda: containers.row().running, "it is started again")
    assert containers.runs()
    eventually(lambda: containers.kicks() == ["crash"], "it is kicked once")


def test_crashes_in_a_row_end_in_rest_and_somebodys_start_begins_anew(containers: Containers, stage: Stage) -> None:
    containers.provisioner.program = ENDS_AT_ONCE
    coder = containers.spawned()
    for number in range(1, CRASHES_MAX + 1):
        containers.tell_of_the_end(coder)
        eventually(lambda number=number: stage.types().count("Crashed") == number, "the crash is recorded")  # type: ignore[misc]
        if number < CRASHES_MAX:
            eventually(lambda: stage.hand.waits_for() is not None, "the restart waits")
            stage.hand.advance(RESTART_FIRST_MS << (number - 1))
            eventually(lambda: containers.row().running, "it is started again")
    row = containers.row()
    assert (row.running, row.restart_ms, row.failure) == (False, None, "exit code 3")
    told = stage.client.read(lambda hive: hive.messages.newest(OPERATOR, 1))[0].body
    assert '"event":"rested"' in told
    containers.provisioner.program = "exec sleep 1000"
    containers.do(coder, "start")
    assert containers.row().crashes == 0
    assert containers.runs()


def test_an_agent_that_needs_login_rests(containers: Containers, coder: "pykka.ActorRef[object]", stage: Stage) -> None:
    stage.ask(ReportLogin(by=agent("coder"), agent="coder", logged_in=False))
    containers.runtime.kill(containers.paths.record("coder"))
    containers.tell_of_the_end(coder)
    eventually(lambda: "Crashed" in stage.types(), "the crash is recorded")
    assert containers.row().restart_ms is None


def test_old_news_of_an_end_changes_nothing(
    containers: Containers, coder: "pykka.ActorRef[object]", stage: Stage
) -> None:
    before = len(stage.rows())
    coder.tell(ContainerEnded("coder", Ended(incarnation="another", exit=Exit(code=1))))
    containers.settle(coder)
    assert types_after(stage, before) == []
    assert containers.runs()


def test_a_stop_ends_the_wait_for_a_restart(
    containers: Containers, coder: "pykka.ActorRef[object]", stage: Stage
) -> None:
    containers.runtime.kill(containers.paths.record("coder"))
    containers.tell_of_the_end(coder)
    eventually(lambda: stage.hand.waits_for() is not None, "the restart waits")
    containers.do(coder, "stop")
    stage.hand.advance(10 * RESTART_FIRST_MS)
    containers.settle(coder)
    assert not containers.row().running
    assert stage.hand.waits_for() is None


# A daemon that died


def test_a_running_agent_is_found_again(containers: Containers, coder: "pykka.ActorRef[object]", stage: Stage) -> None:
    before, incarnation = len(stage.rows()), containers.row().incarnation
    coder.stop()
    stage.reopen()
    containers.settle(containers.actor("coder"))
    assert containers.runs()
    assert containers.row().incarnation == incarnation
    assert types_after(stage, before) == []
    assert containers.kicks() == []


def test_an_agent_that_ended_while_the_daemon_was_down_crashed_with_its_reason(
    containers: Containers, coder: "pykka.ActorRef[object]", stage: Stage
) -> None:
    coder.stop()
    containers.runtime.kill(containers.paths.record("coder"))
    containers.ended()
    containers.actor("coder")
    eventually(lambda: "Crashed" in stage.types(), "the crash is recorded")
    assert containers.row().failure == "signal 9 (SIGKILL)"
    eventually(lambda: stage.hand.waits_for() is not None, "the restart waits")


def test_a_wait_for_a_restart_goes_on_after_the_daemons(
    containers: Containers, coder: "pykka.ActorRef[object]", stage: Stage
) -> None:
    containers.runtime.kill(containers.paths.record("coder"))
    containers.tell_of_the_end(coder)
    eventually(lambda: containers.row().restart_ms is not None, "the restart waits")
    coder.stop()
    stage.hand.advance(10 * RESTART_FIRST_MS)
    containers.actor("coder")
    eventually(lambda: containers.row().running, "it is started again")
    assert containers.kicks() == ["crash"]


def test_after_a_reboot_the_wanted_are_started_and_the_others_are_not(containers: Containers, stage: Stage) -> None:
    wanted, resting = containers.spawned("coder"), containers.spawned("tester")
    containers.do(resting, "stop", "tester")
    wanted.stop()
    resting.stop()
    containers.runtime.kill(containers.paths.record("coder"))
    shutil.rmtree(containers.paths.record("coder").parent)
    for name in ("coder", "tester"):
        containers.settle(containers.actor(name), name)
    assert containers.runs("coder")
    assert not containers.row("tester").running
    assert containers.kicks("coder") == ["boot"]
    assert containers.kicks("tester") == []


@pytest.mark.parametrize(
    ("act", "runs", "kicks"),
    [
        ("stop", False, []),
        ("kill", False, []),
        ("restart", True, ["restart"]),
        ("rebuild", True, ["rebuild"]),
    ],
)
def test_an_act_that_was_decided_and_not_done_is_done_by_the_next(
    containers: Containers, coder: "pykka.ActorRef[object]", act: Act, runs: bool, kicks: list[str]
) -> None:
    coder.stop()
    begun(containers, act)
    containers.settle(containers.actor("coder"))
    assert containers.runs() is runs
    assert containers.row().running is runs
    assert containers.row().act is None
    assert containers.kicks() == kicks


def test_a_start_that_was_decided_and_not_done_is_done_by_the_next(
    containers: Containers, coder: "pykka.ActorRef[object]"
) -> None:
    containers.do(coder, "stop")
    coder.stop()
    begun(containers, "start")
    containers.settle(containers.actor("coder"))
    assert containers.runs()
    assert containers.kicks() == ["start"]


def test_a_spawn_that_was_decided_and_not_done_is_done_by_the_next(containers: Containers) -> None:
    containers.spawned().stop()
    assert containers.row().spawned


@pytest.mark.parametrize("purge", [False, True])
def test_a_destroy_that_was_decided_and_not_done_is_done_by_the_next(
    containers: Containers, coder: "pykka.ActorRef[object]", stage: Stage, purge: bool
) -> None:
    coder.stop()
    begun(containers, "destroy", purge=purge)
    containers.actor("coder")
    eventually(lambda: "Destroyed" in stage.types(), "it is destroyed")
    assert not containers.runs()
    assert containers.paths.agent_state("coder").is_dir() is not purge


def test_a_run_that_a_killed_daemon_started_and_did_not_record_is_replaced(
    containers: Containers, coder: "pykka.ActorRef[object]", stage: Stage
) -> None:
    containers.do(coder, "stop")
    coder.stop()
    begun(containers, "start")
    row, mounts = stage.client.read(lambda hive: (hive.agents.all["coder"], hive.agents.mounts_of("coder")))
    container, _ = containers.provisioner.container(row, mounts, (), containers.repositories.main("coder"))
    left = containers.runtime.start(container)
    containers.settle(containers.actor("coder"))
    assert containers.row().incarnation != left.incarnation
    assert containers.runs()


def test_a_hive_that_stops_keeps_its_agents_wanted(
    containers: Containers, coder: "pykka.ActorRef[object]", stage: Stage
) -> None:
    containers.go_down(coder)
    assert not containers.runs()
    assert containers.row().wanted_running
    coder.stop()
    containers.settle(containers.actor("coder"))
    assert containers.runs()
    assert containers.kicks() == ["boot"]


def test_a_deploy_that_started_the_agent_is_not_yet_one_that_succeeded(
    containers: Containers, coder: "pykka.ActorRef[object]", stage: Stage
) -> None:
    request = RequestCommit(by=agent("manager"), agent="coder", commit_ref="main", requester="manager")
    id = stage.ask(request).first().id
    stage.ask(Pin(by=DAEMON_BY, id=id, fetched_sha="a" * 40))
    stage.ask(Approve(by=OPERATOR_BY, id=id))
    containers.deploy(coder, id)
    assert containers.kicks() == []
    assert not stage.client.read(lambda hive: hive.approvals.all[id].carried_out)
    stage.ask(RecordRebuilt(by=DAEMON_BY, agent="coder", ok=True, revision="a" * 40, approval_id=id))
    assert containers.kicks() == ["deploy"]
    assert stage.client.read(lambda hive: hive.approvals.all[id].carried_out)
