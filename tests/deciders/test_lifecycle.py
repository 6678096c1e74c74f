"""Rules for containers: which act may begin, its outcome, and restarts after crashes."""

from typing import Any

import pytest

from hive.clock import rfc3339
from hive.deciders.lifecycle import (
    CRASHES_MAX,
    RESTART_FIRST_MS,
    RESTART_WAIT_MAX_MS,
    BeginAct,
    RecordActFailed,
    RecordCrash,
    RecordKilled,
    RecordRebuilt,
    RecordStarted,
    RecordStopped,
)
from hive.deciders.messages import FAILED_DELIVERIES_MAX
from hive.errors import AlreadyDone, NotFound, NotYours, Refused
from hive.events import AnyEvent, notices
from hive.events.agents import (
    Act,
    ActDecided,
    ActFailed,
    AgentAdded,
    Crashed,
    Destroyed,
    Killed,
    NeedsLogin,
    Rebuilt,
    RecipientsAllowed,
    Spawned,
    Started,
    StatusSet,
    Stopped,
)
from hive.events.approvals import ApprovalFailed, ApprovalRequested, ApprovalResolved
from hive.events.base import ApprovalId, MessageId
from hive.events.messages import MessageDelivered, MessageRequeued
from hive.projections.agents import STABLE_RUN_MS

from .check import DAEMON_BY, MANAGED, NOW, OPERATOR_BY, by, check, folded, grow, sent, told, tombstone

STOPPED = Stopped(agent="coder", exit="exit code 0")
ADDED = AgentAdded(agent="writer", slot=4)
ACTS: tuple[Act, ...] = ("start", "stop", "kill", "restart", "rebuild", "destroy")


def begin(act: Act, agent: str = "coder", who: Any = OPERATOR_BY, *, purge: bool = False) -> BeginAct:
    return BeginAct(by=who, agent=agent, act=act, purge=purge)


def started(reason: Any = "restart", agent: str = "coder", **fields: Any) -> RecordStarted:
    return RecordStarted(by=DAEMON_BY, agent=agent, incarnation="new", reason=reason, **fields)


def kicked(reason: str) -> notices.Kicked:
    return notices.Kicked(reason=reason)


# What may begin


@pytest.mark.parametrize("act", ["stop", "kill", "restart", "rebuild", "destroy"])
def test_act_on_running_agent_is_recorded_first(act: Act) -> None:
    hive = check(given=MANAGED, when=begin(act), then=[ActDecided(agent="coder", act=act)], answer=act)
    row = hive.agents.all["coder"]
    assert row.act == act
    assert row.wanted_running is (act not in ("stop", "kill", "destroy"))


@pytest.mark.parametrize("act", ["start", "restart", "rebuild", "destroy"])
def test_act_on_stopped_agent_is_recorded_first(act: Act) -> None:
    given = [*MANAGED, ActDecided(agent="coder", act="stop"), STOPPED]
    hive = check(given=given, when=begin(act), then=[ActDecided(agent="coder", act=act)], answer=act)
    row = hive.agents.all["coder"]
    assert row.act == act
    assert row.wanted_running is (act in ("start", "restart"))


RUNS_AGAIN = Started(agent="coder", incarnation="coder-2", reason="restart")


@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        ("start", [RUNS_AGAIN]),
        ("restart", [STOPPED, RUNS_AGAIN]),
        ("restart", [Killed(agent="coder"), RUNS_AGAIN]),
        ("stop", [STOPPED]),
        ("stop", [Killed(agent="coder")]),
        ("kill", [Killed(agent="coder")]),
        ("rebuild", [STOPPED, RUNS_AGAIN, Rebuilt(agent="coder", ok=True)]),
        ("rebuild", [Rebuilt(agent="coder", ok=False, error="no")]),
        ("destroy", [STOPPED, Destroyed(agent="coder")]),
        *((act, [ActFailed(agent="coder", act=act, error="no disk")]) for act in ACTS),
    ],
)
def test_act_is_under_way_until_its_last_event(act: Act, outcome: list[AnyEvent]) -> None:
    hive = folded([*MANAGED, ActDecided(agent="coder", act=act)])
    for event in outcome:
        assert hive.agents.all["coder"].act in (act, None)
        grow(hive, event)
    assert hive.agents.all["coder"].act is None


@pytest.mark.parametrize("act", ["restart", "rebuild"])
def test_restart_is_not_over_when_agent_is_down(act: Act) -> None:
    hive = folded([*MANAGED, ActDecided(agent="coder", act=act), STOPPED])
    assert hive.agents.all["coder"].act == act


def test_start_of_running_and_stop_of_stopped_agent_do_nothing() -> None:
    check(given=MANAGED, when=begin("start"), then=[], answer=None)
    check(given=[*MANAGED, STOPPED], when=begin("stop"), then=[], answer=None)


def test_kill_of_stopped_agent_is_refused() -> None:
    check(given=[*MANAGED, STOPPED], when=begin("kill"), then=AlreadyDone)


def test_stop_cancels_pending_restart() -> None:
    crashed = Crashed(agent="coder", incarnation="coder-1", reason="exit code 1", restart_ms=NOW + 1)
    decided = ActDecided(agent="coder", act="stop")
    hive = check(given=[*MANAGED, crashed], when=begin("stop"), then=[decided], answer="stop")
    assert hive.agents.all["coder"].restart_ms is None


@pytest.mark.parametrize("act", ["start", "restart", "rebuild"])
def test_start_of_unspawned_agent_spawns_it(act: Act) -> None:
    given = [*MANAGED, ADDED, ActFailed(agent="writer", act="spawn", error="no disk")]
    check(given=given, when=begin(act, "writer"), then=[ActDecided(agent="writer", act="spawn")], answer="spawn")


def test_purge_is_recorded_before_destroy() -> None:
    then = [ActDecided(agent="coder", act="destroy", purge=True)]
    hive = check(given=MANAGED, when=begin("destroy", purge=True), then=then, answer="destroy")
    assert hive.agents.all["coder"].act_purges


@pytest.mark.parametrize("act", ["kill", "start", "restart", "rebuild"])
def test_manager_acting_on_itself_is_refused(act: Act) -> None:
    check(given=MANAGED, when=begin(act, "manager", by("manager")), then=NotYours)


@pytest.mark.parametrize("act", ["stop", "kill", "restart", "rebuild"])
def test_manager_acts_on_others_without_approval(act: Act) -> None:
    hive = check(
        given=MANAGED, when=begin(act, who=by("manager")), then=[ActDecided(agent="coder", act=act)], answer=act
    )
    assert len(hive.approvals.all) == 0


def test_the_manager_cannot_be_destroyed() -> None:
    check(given=MANAGED, when=begin("destroy", "manager"), then=Refused)


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("agent", ["nobody", "gone"])
def test_act_on_unknown_agent_is_refused(act: Act, agent: str) -> None:
    check(given=[*MANAGED, *tombstone("gone", 9)], when=begin(act, agent), then=NotFound)


# Starts


def test_first_start_sends_no_kick() -> None:
    then = [Started(agent="writer", incarnation="new", reason="spawn"), Spawned(agent="writer")]
    hive = check(given=[*MANAGED, ADDED], when=started("spawn", "writer"), then=then)
    assert hive.agents.all["writer"].spawned
    assert hive.agents.all["writer"].act is None


@pytest.mark.parametrize("reason", ["start", "restart", "crash", "boot"])
def test_later_start_sends_one_kick(reason: str) -> None:
    then = [Started(agent="coder", incarnation="new", reason=reason), told(1, "coder", kicked(reason))]  # type: ignore[arg-type]
    check(given=[*MANAGED, STOPPED], when=started(reason), then=then)


def test_rebuild_start_and_rebuilt_are_one_commit() -> None:
    then = [
        Started(agent="coder", incarnation="new", reason="rebuild", revision="a" * 40),
        told(1, "coder", kicked("rebuild")),
        Rebuilt(agent="coder", ok=True, revision="a" * 40),
        told(2, "manager", notices.Rebuilt(agent="coder", ok=True)),
    ]
    check(given=[*MANAGED, STOPPED], when=started("rebuild", revision="a" * 40), then=then)


def test_deploy_kicks_only_after_success() -> None:
    start = Started(agent="coder", incarnation="new", reason="deploy", revision="a" * 40)
    check(given=[*MANAGED, STOPPED], when=started("deploy", revision="a" * 40), then=[start])
    rebuilt = Rebuilt(agent="coder", ok=True, revision="a" * 40, approval_id=ApprovalId(1))
    heard = notices.Rebuilt(agent="coder", ok=True)
    when = RecordRebuilt(by=DAEMON_BY, agent="coder", ok=True, revision="a" * 40, approval_id=ApprovalId(1))
    then = [told(1, "coder", kicked("deploy")), rebuilt, told(2, "manager", heard)]
    check(given=[*MANAGED, STOPPED, start], when=when, then=then)
    stopped_agent = [rebuilt, told(1, "manager", heard)]
    check(given=[*MANAGED, STOPPED], when=when, then=stopped_agent)


def test_manager_gets_only_kick_for_its_own_rebuild() -> None:
    then = [
        Started(agent="manager", incarnation="new", reason="rebuild"),
        told(1, "manager", kicked("rebuild")),
        Rebuilt(agent="manager", ok=True),
    ]
    check(given=MANAGED, when=started("rebuild", "manager"), then=then)


def test_allowed_recipients_follow_running_configuration() -> None:
    start = Started(agent="coder", incarnation="new", reason="restart")
    allowed = RecipientsAllowed(agent="coder", recipients=("tester",))
    then = [start, allowed, told(1, "coder", kicked("restart"))]
    check(given=MANAGED, when=started(recipients=("tester",)), then=then)
    unchanged = [start, told(1, "coder", kicked("restart"))]
    check(given=[*MANAGED, allowed], when=started(recipients=("tester",)), then=unchanged)
    lifted = [start, RecipientsAllowed(agent="coder", recipients=None), told(1, "coder", kicked("restart"))]
    check(given=[*MANAGED, allowed], when=started(), then=lifted)


# Ends


@pytest.mark.parametrize("reason", ["stopped", "killed"])
def test_stop_requeues_messages_without_counting(reason: str) -> None:
    given = [*MANAGED, sent(1, "coder"), MessageDelivered(id=MessageId(1), to="coder", incarnation="one")]
    back = MessageRequeued(id=MessageId(1), to="coder", reason=reason)
    if reason == "stopped":
        when: Any = RecordStopped(by=DAEMON_BY, agent="coder", exit="exit code 0")
        then: list[AnyEvent] = [STOPPED, back]
    else:
        when = RecordKilled(by=DAEMON_BY, agent="coder")
        then = [Killed(agent="coder"), back, told(2, "manager", notices.Killed(agent="coder"))]
    hive = check(given=given, when=when, then=then)
    assert hive.messages.waiting("coder")[0].failures == 0
    assert not hive.agents.all["coder"].running


def test_kill_of_manager_is_not_told_to_manager() -> None:
    check(given=MANAGED, when=RecordKilled(by=DAEMON_BY, agent="manager"), then=[Killed(agent="manager")])


def test_status_and_rate_limit_are_cleared_with_container() -> None:
    given = [*MANAGED, StatusSet(agent="coder", text="parsing")]
    hive = check(given=given, when=RecordStopped(by=DAEMON_BY, agent="coder", exit="exit code 0"), then=[STOPPED])
    assert hive.agents.all["coder"].status_text is None


# Crashes


def crash(agent: str = "coder", incarnation: str = "coder-1", **fields: Any) -> RecordCrash:
    fields = {"reason": "exit code 1", "code": 1, "ended_ms": NOW - 5, **fields}
    return RecordCrash(by=DAEMON_BY, agent=agent, incarnation=incarnation, **fields)


def crashed(restart_ms: int | None, agent: str = "coder", incarnation: str = "coder-1") -> Crashed:
    return Crashed(
        agent=agent, incarnation=incarnation, reason="exit code 1", code=1, ended_ms=NOW - 5, restart_ms=restart_ms
    )


def test_crash_tells_manager_and_delays_restart() -> None:
    at = NOW + RESTART_FIRST_MS
    notice = notices.Crashed(agent="coder", reason="exit code 1", restart_at=rfc3339(at))
    check(given=MANAGED, when=crash(), then=[crashed(at), told(1, "manager", notice)])


def test_crash_requeues_messages_and_counts() -> None:
    given = [*MANAGED, sent(1, "coder"), MessageDelivered(id=MessageId(1), to="coder", incarnation="one")]
    at = NOW + RESTART_FIRST_MS
    notice = notices.Crashed(agent="coder", reason="exit code 1", restart_at=rfc3339(at))
    back = MessageRequeued(id=MessageId(1), to="coder", reason="crashed", counts=True)
    check(given=given, when=crash(), then=[crashed(at), back, told(2, "manager", notice)])


def test_message_is_dead_before_its_crashes_rest_the_agent() -> None:
    assert FAILED_DELIVERIES_MAX <= CRASHES_MAX


@pytest.mark.parametrize("crash_number", range(1, 5))
def test_restart_delay_doubles(crash_number: int) -> None:
    given: list[AnyEvent] = [*MANAGED]
    for number in range(1, crash_number):
        given += [
            crashed(NOW, incarnation=f"coder-{number}"),
            Started(agent="coder", incarnation=f"coder-{number + 1}", reason="crash"),
        ]
    at = NOW + min(RESTART_FIRST_MS * 2 ** (crash_number - 1), RESTART_WAIT_MAX_MS)
    notice = notices.Crashed(agent="coder", reason="exit code 1", restart_at=rfc3339(at))
    last = f"coder-{crash_number}"
    check(given=given, when=crash(incarnation=last), then=[crashed(at, incarnation=last), told(1, "manager", notice)])


def in_a_row(count: int) -> list[AnyEvent]:
    """This many crashes of the coder, each restarted; it runs as the last incarnation."""
    events: list[AnyEvent] = []
    for number in range(1, count + 1):
        last = Started(agent="coder", incarnation=f"coder-{number + 1}", reason="crash")
        events += [crashed(NOW, incarnation=f"coder-{number}"), last]
    return events


def test_agent_rests_after_last_crash_and_operator_is_told() -> None:
    last = f"coder-{CRASHES_MAX}"
    why = f"it ended {CRASHES_MAX} times in a row, the last time with exit code 1; start it when the cause is gone"
    then = [
        crashed(None, incarnation=last),
        told(1, "manager", notices.Crashed(agent="coder", reason="exit code 1", restart_at=None)),
        told(2, "operator", notices.Rested(agent="coder", reason=why)),
    ]
    hive = check(given=[*MANAGED, *in_a_row(CRASHES_MAX - 1)], when=crash(incarnation=last), then=then)
    assert hive.agents.all["coder"].failure == "exit code 1"


def test_long_run_or_manual_start_resets_crash_count() -> None:
    given = [*MANAGED, *in_a_row(CRASHES_MAX - 1)]
    last = f"coder-{CRASHES_MAX}"
    at = NOW + STABLE_RUN_MS + RESTART_FIRST_MS
    notice = notices.Crashed(agent="coder", reason="exit code 1", restart_at=rfc3339(at))
    then = [crashed(at, incarnation=last), told(1, "manager", notice)]
    check(given=given, when=crash(incarnation=last), then=then, at=NOW + STABLE_RUN_MS)
    by_hand = Started(agent="coder", incarnation="by-hand", reason="start")
    assert folded([*given, by_hand]).agents.all["coder"].crashes == 0


def test_crashed_agent_that_needs_login_rests() -> None:
    then = [
        crashed(None),
        told(1, "manager", notices.Crashed(agent="coder", reason="exit code 1", restart_at=None)),
        told(2, "operator", notices.Rested(agent="coder", reason="it ended (exit code 1) and needs login")),
    ]
    check(given=[*MANAGED, NeedsLogin(agent="coder")], when=crash(), then=then)


def test_crash_of_manager_is_not_told_to_manager() -> None:
    event = crashed(NOW + RESTART_FIRST_MS, "manager", "manager-1")
    check(given=MANAGED, when=crash("manager", "manager-1"), then=[event])


@pytest.mark.parametrize(
    ("given", "incarnation"),
    [([], "another"), ([STOPPED], "coder-1"), ([crashed(None)], "coder-1")],
    ids=["another run", "stopped meanwhile", "known already"],
)
def test_stale_crash_report_is_ignored(given: list[AnyEvent], incarnation: str) -> None:
    check(given=[*MANAGED, *given], when=crash(incarnation=incarnation), then=[])
    check(given=MANAGED, when=crash("nobody"), then=[])


# What does not work


def test_failed_rebuild_is_told_to_manager() -> None:
    when = RecordRebuilt(by=DAEMON_BY, agent="coder", ok=False, error="no build")
    then = [
        Rebuilt(agent="coder", ok=False, error="no build"),
        told(1, "manager", notices.Rebuilt(agent="coder", ok=False, error="no build")),
    ]
    check(given=MANAGED, when=when, then=then)


@pytest.mark.parametrize(("agent", "to"), [("coder", "manager"), ("manager", "operator")])
def test_failed_act_is_told_and_sends_no_kick(agent: str, to: str) -> None:
    given = [*MANAGED, ActDecided(agent=agent, act="restart")]
    when = RecordActFailed(by=DAEMON_BY, agent=agent, act="restart", error="no walls")
    then = [
        ActFailed(agent=agent, act="restart", error="no walls"),
        told(1, to, notices.ActFailed(agent=agent, act="restart", error="no walls")),
    ]
    hive = check(given=given, when=when, then=then)
    assert hive.agents.all[agent].act is None
    assert hive.agents.all[agent].failure == "no walls"


def test_failed_spawn_fails_its_approval() -> None:
    one = ApprovalId(1)
    given = [
        *MANAGED,
        ApprovalRequested(id=one, agent="writer", kind="spawn", requester="manager"),
        ApprovalResolved(id=one, agent="writer", kind="spawn", status="approved"),
        ADDED,
    ]
    outcome = notices.ApprovalResolved(id=one, agent="writer", kind="spawn", status="failed", note="no disk")
    then = [
        ActFailed(agent="writer", act="spawn", error="no disk"),
        ApprovalFailed(id=one, agent="writer", error="no disk"),
        told(1, "manager", outcome),
        told(2, "manager", notices.ActFailed(agent="writer", act="spawn", error="no disk")),
    ]
    check(given=given, when=RecordActFailed(by=DAEMON_BY, agent="writer", act="spawn", error="no disk"), then=then)
