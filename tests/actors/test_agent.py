"""The agent actor with real processes: acts, records, kicks and recovery."""

import shutil

import pykka
import pytest

from hive.actors.agent import Do, Ticket
from hive.deciders.approvals import Approve, Pin, RequestCommit
from hive.deciders.lifecycle import RESTART_FIRST_MS, BeginAct, RecordRebuilt
from hive.deciders.messages import Recv, Send
from hive.errors import HiveError, NotYours, Unavailable
from hive.events.agents import Act
from hive.events.base import agent
from hive.names import OPERATOR

from .containers import Containers
from .journal_environment import DAEMON_BY, OPERATOR_BY, JournalEnvironment, eventually


def begun(containers: Containers, act: Act, *, purge: bool = False) -> None:
    """Record an act that a daemon decided before it crashed."""
    containers.env.ask(BeginAct(by=OPERATOR_BY, agent="coder", act=act, purge=purge))


def types_after(env: JournalEnvironment, count: int) -> list[str]:
    return env.types()[count:]


# Acts


def test_spawned_agent_runs_without_a_kick(containers: Containers, coder: object, env: JournalEnvironment) -> None:
    assert env.types() == ["AgentAdded", "TransientSet", "Started", "LimitsSet", "Spawned", "TransientCleared"]
    assert containers.runs()
    assert containers.kicks() == []
    row = containers.row()
    assert (row.running, row.spawned, row.act, row.failure) == (True, True, None, None)
    assert row.revision == containers.repositories.main("coder")


def test_start_of_a_stopped_agent_kicks_once(
    containers: Containers, coder: "pykka.ActorRef[object]", env: JournalEnvironment
) -> None:
    before = len(env.rows())
    containers.do(coder, "stop")
    assert not containers.runs()
    assert types_after(env, before) == ["ActDecided", "TransientSet", "Stopped", "TransientCleared"]
    containers.do(coder, "stop")
    containers.do(coder, "start")
    containers.do(coder, "start")
    assert containers.runs()
    assert containers.kicks() == ["start"]


def test_restart_makes_a_new_run_and_one_kick(containers: Containers, coder: "pykka.ActorRef[object]") -> None:
    before = containers.row().incarnation
    containers.do(coder, "restart")
    assert containers.runs()
    assert containers.row().incarnation != before
    assert containers.kicks() == ["restart"]
    containers.do(coder, "stop")
    containers.do(coder, "restart")
    assert containers.kicks() == ["restart", "restart"]


def test_kill_stops_the_agent_and_notifies_the_manager(
    containers: Containers, coder: "pykka.ActorRef[object]", env: JournalEnvironment
) -> None:
    containers.do(coder, "kill")
    assert not containers.runs()
    assert env.types()[-3:] == ["Killed", "MessageSent", "TransientCleared"]
    with pytest.raises(HiveError, match="not running"):
        containers.do(coder, "kill")
    assert containers.kicks() == []


def test_rebuild_runs_the_wanted_commit_and_kicks_once(
    containers: Containers, coder: "pykka.ActorRef[object]", env: JournalEnvironment
) -> None:
    wanted = containers.apply({"prompt.md": b"Be brief.\n"})
    containers.do(coder, "rebuild")
    assert containers.row().revision == wanted
    assert containers.kicks() == ["rebuild"]
    assert "Rebuilt" in env.types()


def test_rebuild_does_not_start_a_stopped_agent(
    containers: Containers, coder: "pykka.ActorRef[object]", env: JournalEnvironment
) -> None:
    containers.do(coder, "stop")
    containers.do(coder, "rebuild")
    assert not containers.runs()
    assert env.types()[-3:] == ["Rebuilt", "MessageSent", "TransientCleared"]
    assert containers.kicks() == []


def test_destroy_keeps_the_state_and_purge_removes_it(containers: Containers) -> None:
    containers.do(containers.spawned("coder"), "destroy", "coder")
    assert not containers.runs()
    assert containers.paths.agent_state("coder").is_dir()
    containers.do(containers.spawned("tester"), "destroy", "tester", purge=True)
    assert not containers.paths.agent("tester").exists()
    assert not containers.paths.applied("tester").exists()
    rows = containers.env.client.read(lambda hive: [row.name for row in hive.agents.all])
    assert rows == ["coder"]


def test_acts_run_in_order(containers: Containers, coder: "pykka.ActorRef[object]", env: JournalEnvironment) -> None:
    before, tickets = len(env.rows()), []
    for act in ("stop", "start", "restart", "kill"):
        ticket = Ticket()
        coder.tell(Do(agent="coder", act=act, by=OPERATOR_BY, ticket=ticket))  # type: ignore[arg-type]
        tickets.append(ticket)
    for ticket in tickets:
        ticket.result(60)
    story = [name for name in types_after(env, before) if not name.startswith(("Transient", "Message"))]
    decided = "ActDecided"
    assert story == [decided, "Stopped", decided, "Started", decided, "Stopped", "Started", decided, "Killed"]


def test_manager_cannot_act_on_itself(
    containers: Containers, coder: "pykka.ActorRef[object]", env: JournalEnvironment
) -> None:
    before = len(env.rows())
    with pytest.raises(NotYours):
        containers.env.ask(BeginAct(by=agent("coder"), agent="coder", act="kill"))
    assert types_after(env, before) == []


def test_restart_requeues_messages_in_flight(
    containers: Containers, coder: "pykka.ActorRef[object]", env: JournalEnvironment
) -> None:
    env.ask(Send(by=OPERATOR_BY, sender=OPERATOR, to="coder", body="work"))
    env.ask(Recv(by=agent("coder"), agent="coder", incarnation="one"))
    containers.do(coder, "restart")
    (first, *_) = env.client.read(lambda hive: hive.messages.waiting("coder"))
    assert (first.body, first.redelivered, first.failures) == ("work", True, 0)


# Failures


@pytest.mark.parametrize("act", ["start", "restart", "rebuild"])
def test_failed_act_is_answered_and_recorded_without_a_kick(
    containers: Containers, coder: "pykka.ActorRef[object]", env: JournalEnvironment, act: Act
) -> None:
    containers.do(coder, "stop")
    containers.apply({"agent.toml": b"model = 3\n"})
    with pytest.raises(HiveError, match=r"agent\.toml"):
        containers.do(coder, act)
    assert not containers.runs()
    assert "ActFailed" in env.types()
    assert env.types()[-1] == "TransientCleared"
    row = containers.row()
    assert row.act is None
    assert row.failure is not None
    assert containers.kicks() == []
    assert coder.is_alive()


def test_failed_spawn_can_be_retried(containers: Containers, env: JournalEnvironment) -> None:
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


def test_stopping_actor_answers_waiting_callers(containers: Containers, coder: "pykka.ActorRef[object]") -> None:
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


# Recovery


def test_new_actor_takes_over_a_running_agent(
    containers: Containers, coder: "pykka.ActorRef[object]", env: JournalEnvironment
) -> None:
    before, incarnation = len(env.rows()), containers.row().incarnation
    coder.stop()
    env.reopen()
    containers.settle(containers.actor("coder"))
    assert containers.runs()
    assert containers.row().incarnation == incarnation
    assert types_after(env, before) == []
    assert containers.kicks() == []


def test_end_during_downtime_is_recorded_as_crash_with_its_reason(
    containers: Containers, coder: "pykka.ActorRef[object]", env: JournalEnvironment
) -> None:
    coder.stop()
    containers.runtime.kill(containers.paths.record("coder"))
    containers.ended()
    containers.actor("coder")
    eventually(lambda: "Crashed" in env.types(), "the crash is recorded")
    assert containers.row().failure == "signal 9 (SIGKILL)"
    eventually(lambda: env.manual.waits_for() is not None, "the restart waits")


def test_scheduled_restart_survives_a_daemon_restart(
    containers: Containers, coder: "pykka.ActorRef[object]", env: JournalEnvironment
) -> None:
    containers.runtime.kill(containers.paths.record("coder"))
    containers.tell_of_the_end(coder)
    eventually(lambda: containers.row().restart_ms is not None, "the restart waits")
    coder.stop()
    env.manual.advance(10 * RESTART_FIRST_MS)
    containers.actor("coder")
    eventually(lambda: containers.row().running, "it is started again")
    assert containers.kicks() == ["crash"]


def test_reboot_starts_only_wanted_agents(containers: Containers, env: JournalEnvironment) -> None:
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
def test_next_actor_finishes_a_decided_act(
    containers: Containers, coder: "pykka.ActorRef[object]", act: Act, runs: bool, kicks: list[str]
) -> None:
    coder.stop()
    begun(containers, act)
    containers.settle(containers.actor("coder"))
    assert containers.runs() is runs
    assert containers.row().running is runs
    assert containers.row().act is None
    assert containers.kicks() == kicks


def test_next_actor_finishes_a_decided_start(containers: Containers, coder: "pykka.ActorRef[object]") -> None:
    containers.do(coder, "stop")
    coder.stop()
    begun(containers, "start")
    containers.settle(containers.actor("coder"))
    assert containers.runs()
    assert containers.kicks() == ["start"]


def test_next_actor_finishes_a_decided_spawn(containers: Containers) -> None:
    containers.spawned().stop()
    assert containers.row().spawned


@pytest.mark.parametrize("purge", [False, True])
def test_next_actor_finishes_a_decided_destroy(
    containers: Containers, coder: "pykka.ActorRef[object]", env: JournalEnvironment, purge: bool
) -> None:
    coder.stop()
    begun(containers, "destroy", purge=purge)
    containers.actor("coder")
    eventually(lambda: "Destroyed" in env.types(), "it is destroyed")
    assert not containers.runs()
    assert containers.paths.agent_state("coder").is_dir() is not purge


def test_unrecorded_run_of_a_killed_daemon_is_replaced(
    containers: Containers, coder: "pykka.ActorRef[object]", env: JournalEnvironment
) -> None:
    containers.do(coder, "stop")
    coder.stop()
    begun(containers, "start")
    row, mounts = env.client.read(lambda hive: (hive.agents.all["coder"], hive.agents.mounts_of("coder")))
    container, _ = containers.provisioner.container(row, mounts, (), containers.repositories.main("coder"))
    left = containers.runtime.start(container)
    containers.settle(containers.actor("coder"))
    assert containers.row().incarnation != left.incarnation
    assert containers.runs()


def test_hive_stop_keeps_agents_wanted(
    containers: Containers, coder: "pykka.ActorRef[object]", env: JournalEnvironment
) -> None:
    containers.go_down(coder)
    assert not containers.runs()
    assert containers.row().wanted_running
    coder.stop()
    containers.settle(containers.actor("coder"))
    assert containers.runs()
    assert containers.kicks() == ["boot"]


def test_deploy_is_not_successful_at_the_start_of_the_agent(
    containers: Containers, coder: "pykka.ActorRef[object]", env: JournalEnvironment
) -> None:
    request = RequestCommit(by=agent("manager"), agent="coder", commit_ref="main", requester="manager")
    id = env.ask(request).first().id
    env.ask(Pin(by=DAEMON_BY, id=id, fetched_sha="a" * 40))
    env.ask(Approve(by=OPERATOR_BY, id=id))
    containers.deploy(coder, id)
    assert containers.kicks() == []
    assert not env.client.read(lambda hive: hive.approvals.all[id].carried_out)
    env.ask(RecordRebuilt(by=DAEMON_BY, agent="coder", ok=True, revision="a" * 40, approval_id=id))
    assert containers.kicks() == ["deploy"]
    assert env.client.read(lambda hive: hive.approvals.all[id].carried_out)
