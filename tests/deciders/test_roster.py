"""The rules of who is there: spawn, revive, purge, destroy; what the crash watch sees; what the operator sets."""

from typing import Any

import pytest

from hive.deciders import axes, controls
from hive.deciders.base import LABEL_MAX_CHARS
from hive.deciders.destroy import RecordDestroyed
from hive.deciders.reminders import AHEAD_MAX_MS, PENDING_MAX, Fire, Remind
from hive.deciders.roster import AGENTS_MAX, RecordPurged, Revive, Spawn
from hive.errors import AlreadyDone, BadRequest, LimitReached, NotFound, Refused
from hive.events import AnyEvent, notices
from hive.events.agents import (
    AgentAdded,
    AxesSeeded,
    Destroyed,
    LoggedIn,
    ModelSet,
    Mounted,
    NeedsLogin,
    NeedsUpdate,
    Paused,
    Purged,
    RateLimited,
    Responsive,
    Resumed,
    Revived,
    StatusSet,
    Stopped,
    Unmounted,
    Unresponsive,
)
from hive.events.approvals import ApprovalFailed, ApprovalRequested, ApprovalResolved
from hive.events.base import ApprovalId, MessageId, QuestionId, ReminderId
from hive.events.messages import MessageDead, MessageDelivered
from hive.events.operators import OperatorAdded, OperatorRevoked
from hive.events.questions import QuestionAdded, QuestionResolved
from hive.events.reminders import ReminderDropped, ReminderFired, ReminderSet
from hive.events.transient import TransientSet

from .check import DAEMON_BY, MANAGED, NOW, OPERATOR_BY, by, check, folded, sent, spawned, told, tombstone

# Spawn, revive, purge


def test_the_manager_is_on_the_roster_before_anybody_else() -> None:
    check(when=Spawn(by=DAEMON_BY, agent="manager"), then=[AgentAdded(agent="manager", slot=1)])


def test_a_spawned_agent_is_wanted_running_and_has_a_slot_never_used_before() -> None:
    given = [*MANAGED, *tombstone("gone", 9), Purged(agent="gone")]
    hive = check(given=given, when=Spawn(by=OPERATOR_BY, agent="gone"), then=[AgentAdded(agent="gone", slot=10)])
    row = hive.agents.all["gone"]
    assert (row.wanted_running, row.act, row.spawned) == (True, "spawn", False)


@pytest.mark.parametrize(
    ("agent", "says"), [("coder", "exists already"), ("manager", "exists already"), ("gone", "revive it or purge it")]
)
def test_a_taken_name_is_not_spawned_and_it_is_said_what_to_do(agent: str, says: str) -> None:
    spawn = Spawn(by=OPERATOR_BY, agent=agent)
    check(given=[*MANAGED, *tombstone("gone", 9)], when=spawn, then=AlreadyDone, says=says)


def test_the_roster_is_bounded() -> None:
    crowd: list[AnyEvent] = [AgentAdded(agent=f"x{number}", slot=number) for number in range(AGENTS_MAX)]
    check(given=crowd, when=Spawn(by=OPERATOR_BY, agent="coder"), then=LimitReached)
    check(given=[*tombstone("gone", 9_999), *crowd], when=Revive(by=OPERATOR_BY, agent="gone"), then=LimitReached)


def test_a_tombstone_is_revived_in_its_old_slot() -> None:
    given = [*MANAGED, *tombstone("gone", 9)]
    hive = check(given=given, when=Revive(by=OPERATOR_BY, agent="gone"), then=[Revived(agent="gone")])
    row = hive.agents.all["gone"]
    assert (row.slot, row.act, row.wanted_running, row.destroyed_ms) == (9, "spawn", True, None)


def test_only_a_tombstone_is_revived_or_purged() -> None:
    check(given=MANAGED, when=Revive(by=OPERATOR_BY, agent="coder"), then=AlreadyDone)
    check(given=MANAGED, when=Revive(by=OPERATOR_BY, agent="nobody"), then=NotFound)
    check(given=MANAGED, when=RecordPurged(by=OPERATOR_BY, agent="coder"), then=NotFound)
    check(given=MANAGED, when=RecordPurged(by=OPERATOR_BY, agent="nobody"), then=NotFound)


def test_a_purged_tombstone_is_forgotten_with_its_inbox() -> None:
    given = [*MANAGED, *spawned("gone", 9), sent(1, "gone"), Destroyed(agent="gone")]
    hive = check(given=given, when=RecordPurged(by=OPERATOR_BY, agent="gone"), then=[Purged(agent="gone")])
    assert hive.agents.tombstones() == []
    assert hive.messages.newest("gone", 9) == []
    at_once = folded([*spawned("gone", 9), sent(1, "gone"), Destroyed(agent="gone", purge=True)])
    assert at_once.messages.newest("gone", 9) == []


# Destroy


def destroy(agent: str = "coder", *, purge: bool = False) -> RecordDestroyed:
    return RecordDestroyed(by=DAEMON_BY, agent=agent, purge=purge)


def unread(agent: str, count: int) -> notices.Destroyed:
    return notices.Destroyed(agent=agent, unread=count)


def test_an_agent_with_nothing_open_leaves_a_tombstone() -> None:
    then = [
        Destroyed(agent="coder"),
        told(1, "operator", unread("coder", 0)),
        told(2, "manager", unread("coder", 0)),
    ]
    hive = check(given=MANAGED, when=destroy(), then=then)
    assert [row.name for row in hive.agents.tombstones()] == ["coder"]
    assert check(given=MANAGED, when=destroy(purge=True), then=[Destroyed(agent="coder", purge=True), *then[1:]])


def test_the_manager_is_not_destroyed() -> None:
    check(given=MANAGED, when=destroy("manager"), then=Refused)
    check(given=MANAGED, when=destroy("nobody"), then=NotFound)


def test_whatever_is_open_with_a_destroyed_agent_is_settled_and_the_other_side_is_told() -> None:
    def question(id: int, asker: str, target: str | None) -> QuestionAdded:
        return QuestionAdded(id=QuestionId(id), asker=asker, target=target, question="?")

    def cancelled(id: int, asker: str, target: str | None) -> QuestionResolved:
        return QuestionResolved(id=QuestionId(id), asker=asker, target=target, answer="[cancelled]", answerer="system")

    given = [
        *MANAGED,
        question(1, "coder", None),
        question(2, "coder", "tester"),
        question(3, "tester", "coder"),
        question(4, "tester", "manager"),
        ApprovalRequested(id=ApprovalId(1), agent="coder", kind="apply_commit", requester="manager"),
        ApprovalRequested(id=ApprovalId(2), agent="coder", kind="apply_commit", requester="manager"),
        ApprovalResolved(id=ApprovalId(2), agent="coder", kind="apply_commit", status="approved"),
        ApprovalRequested(id=ApprovalId(3), agent="tester", kind="apply_commit", requester="manager"),
        ReminderSet(id=ReminderId(1), agent="coder", message="look", due_ms=NOW + 1),
        ReminderSet(id=ReminderId(2), agent="tester", message="look", due_ms=NOW + 1),
        sent(1, "coder", sender="tester"),
        sent(2, "coder", sender="coder"),
        sent(3, "coder"),
        sent(4, "tester", sender="coder"),
        MessageDelivered(id=MessageId(1), to="coder"),
    ]
    gone = "coder was destroyed"

    def row(id: int, status: str) -> notices.ApprovalResolved:
        return notices.ApprovalResolved(id=ApprovalId(id), agent="coder", kind="apply_commit", status=status, note=gone)

    answered = notices.OperatorAnswered(id=QuestionId(3), question="?", answer="[cancelled]", answerer="system")
    then = [
        Destroyed(agent="coder"),
        cancelled(1, "coder", None),
        cancelled(2, "coder", "tester"),
        told(5, "tester", notices.QuestionClosed(id=QuestionId(2), answer="[cancelled]", answerer="system")),
        cancelled(3, "tester", "coder"),
        told(6, "tester", answered),
        ApprovalResolved(id=ApprovalId(1), agent="coder", kind="apply_commit", status="cancelled", note=gone),
        told(7, "manager", row(1, "cancelled")),
        ApprovalFailed(id=ApprovalId(2), agent="coder", error=gone),
        told(8, "manager", row(2, "failed")),
        ReminderDropped(id=ReminderId(1), agent="coder"),
        MessageDead(id=MessageId(1), to="coder", reason=gone),
        MessageDead(id=MessageId(2), to="coder", reason=gone),
        MessageDead(id=MessageId(3), to="coder", reason=gone),
        told(9, "operator", unread("coder", 1)),
        told(10, "tester", unread("coder", 1)),
        told(11, "manager", unread("coder", 0)),
    ]
    hive = check(given=given, when=destroy(), then=then)
    assert [one.id for one in hive.questions.pending()] == [4]
    assert [one.id for one in hive.approvals.pending()] == [3]
    assert hive.approvals.under_way() == []
    assert [one.id for one in hive.reminders.pending] == [2]


# What the crash watch and the harness observe


def look(agent: str = "coder", **fields: Any) -> axes.Look:
    seen = {"key_ms": 0, "credentials_ms": None, "revision": None, "stale": False, "connected": True, **fields}
    return axes.Look(by=DAEMON_BY, agent=agent, **seen)


def test_what_is_as_it_was_is_no_event() -> None:
    check(given=MANAGED, when=look(), then=[])
    check(given=MANAGED, when=look("nobody"), then=[])
    stale = [NeedsUpdate(agent="coder"), NeedsLogin(agent="coder"), Unresponsive(agent="coder")]
    check(given=[*MANAGED, *stale], when=look(key_ms=None, stale=True, connected=False), then=[])


@pytest.mark.parametrize(("agent", "to"), [("coder", "manager"), ("manager", "operator")])
def test_a_lost_login_is_told_and_so_is_a_new_one(agent: str, to: str) -> None:
    then = [NeedsLogin(agent=agent), told(1, to, notices.NeedsLogin(agent=agent))]
    check(given=MANAGED, when=look(agent, key_ms=None), then=then)
    back = [LoggedIn(agent=agent), told(1, to, notices.LoggedIn(agent=agent))]
    check(given=[*MANAGED, NeedsLogin(agent=agent)], when=look(agent, key_ms=None, credentials_ms=NOW), then=back)


def test_becoming_stale_is_told_and_the_way_back_is_the_rebuild() -> None:
    then = [NeedsUpdate(agent="coder"), told(1, "manager", notices.NeedsUpdate(agent="coder"))]
    check(given=MANAGED, when=look(stale=True), then=then)
    check(given=[*MANAGED, NeedsUpdate(agent="coder")], when=look(), then=[])


def test_what_is_being_brought_up_to_date_or_was_replaced_meanwhile_is_not_stale() -> None:
    held = TransientSet(agent="coder", kind="rebuilding")
    check(given=[*MANAGED, held], when=look(stale=True), then=[])
    check(given=MANAGED, when=look(stale=True, revision="b" * 40), then=[])


def test_a_silent_harness_is_a_badge_and_no_message() -> None:
    check(given=MANAGED, when=look(connected=False), then=[Unresponsive(agent="coder")])
    check(given=[*MANAGED, Unresponsive(agent="coder")], when=look(), then=[Responsive(agent="coder")])
    check(given=[*MANAGED, Stopped(agent="coder", exit="-")], when=look(connected=False), then=[])


def test_the_first_look_only_seeds() -> None:
    then = [AxesSeeded(agent="coder", needs_login=True, needs_update=True)]
    hive = check(given=MANAGED, when=look(key_ms=None, stale=True, connected=False, seeds=True), then=then)
    assert hive.agents.all["coder"].needs_login
    check(given=MANAGED, when=look(seeds=True), then=[])


def test_refused_credentials_count_again_only_when_they_are_newer() -> None:
    report = axes.ReportLogin(by=by("coder"), agent="coder", logged_in=False)
    refused = NeedsLogin(agent="coder", refused=True)
    check(given=MANAGED, when=report, then=[refused, told(1, "manager", notices.NeedsLogin(agent="coder"))])
    given = [*MANAGED, refused]
    check(given=given, when=report, then=[])
    check(given=given, when=look(key_ms=NOW - 1, credentials_ms=NOW), then=[])
    newer = [LoggedIn(agent="coder"), told(1, "manager", notices.LoggedIn(agent="coder"))]
    check(given=given, when=look(key_ms=NOW - 1, credentials_ms=NOW + 1), then=newer)
    works = axes.ReportLogin(by=by("coder"), agent="coder", logged_in=True)
    check(given=given, when=works, then=newer)


def test_a_rate_limit_is_set_and_cleared_once() -> None:
    def report(until: int | None) -> axes.ReportRateLimit:
        return axes.ReportRateLimit(by=by("coder"), agent="coder", until_ms=until)

    check(given=MANAGED, when=report(NOW + 5), then=[RateLimited(agent="coder", until_ms=NOW + 5)])
    limited = [*MANAGED, RateLimited(agent="coder", until_ms=NOW + 5)]
    check(given=limited, when=report(NOW + 5), then=[])
    check(given=limited, when=report(None), then=[RateLimited(agent="coder", until_ms=None)])
    check(given=MANAGED, when=report(None), then=[])


def test_a_status_is_shown_and_bounded() -> None:
    def status(text: str) -> axes.SetStatus:
        return axes.SetStatus(by=by("coder"), agent="coder", text=text)

    check(given=MANAGED, when=status("parsing"), then=[StatusSet(agent="coder", text="parsing")])
    check(given=MANAGED, when=status("x" * (LABEL_MAX_CHARS + 1)), then=BadRequest)


# Reminders


def remind(**fields: Any) -> Remind:
    return Remind(by=by("coder"), agent="coder", **{"message": "look", **fields})


def reminder(id: int, due_ms: int, agent: str = "coder") -> ReminderSet:
    return ReminderSet(id=ReminderId(id), agent=agent, message="look", due_ms=due_ms)


def test_a_reminder_has_a_delay_or_a_time() -> None:
    check(given=MANAGED, when=remind(delay_ms=1_500), then=[reminder(1, NOW + 1_500)])
    check(given=MANAGED, when=remind(due_ms=NOW + 7), then=[reminder(1, NOW + 7)])
    check(given=MANAGED, when=remind(delay_ms=0), then=[reminder(1, NOW)])
    check(given=MANAGED, when=remind(due_ms=5), then=[reminder(1, 5)])
    check(given=MANAGED, when=remind(delay_ms=AHEAD_MAX_MS), then=[reminder(1, NOW + AHEAD_MAX_MS)])


@pytest.mark.parametrize("agent", ["nobody", "gone"])
def test_nobody_who_does_not_live_is_reminded(agent: str) -> None:
    when = Remind(by=by(agent), agent=agent, message="look", delay_ms=1)
    check(given=[*MANAGED, *tombstone("gone", 9)], when=when, then=NotFound)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"delay_ms": 1, "due_ms": 1},
        {"delay_ms": -1},
        {"delay_ms": AHEAD_MAX_MS + 1},
        {"due_ms": NOW + AHEAD_MAX_MS + 1},
        {"message": " ", "delay_ms": 1},
        {"message": "x" * 20_000, "delay_ms": 1},
    ],
    ids=str,
)
def test_a_malformed_reminder_is_refused(fields: dict[str, object]) -> None:
    check(given=MANAGED, when=remind(**fields), then=BadRequest)


def test_fifty_reminders_may_be_pending() -> None:
    assert PENDING_MAX == 50
    many: list[AnyEvent] = [reminder(number, NOW + 1) for number in range(1, PENDING_MAX + 1)]
    check(given=[*MANAGED, *many], when=remind(delay_ms=1), then=LimitReached)
    fired = ReminderFired(id=ReminderId(1), agent="coder")
    check(given=[*MANAGED, *many, fired], when=remind(delay_ms=1), then=[reminder(51, NOW + 1)])


def test_a_due_reminder_is_delivered_once_as_a_message_from_system() -> None:
    fire = Fire(by=DAEMON_BY, id=ReminderId(1))
    fired = ReminderFired(id=ReminderId(1), agent="coder")
    then = [fired, told(1, "coder", notices.Reminder(id=ReminderId(1), message="look"))]
    given = [*MANAGED, reminder(1, NOW + 10)]
    check(given=given, when=fire, then=[], at=NOW + 9)
    check(given=given, when=fire, then=then, at=NOW + 10)
    check(given=[*given, fired], when=fire, then=[], at=NOW + 10)
    check(given=[*given, ReminderDropped(id=ReminderId(1), agent="coder")], when=fire, then=[], at=NOW + 10)


def test_pending_reminders_are_counted_by_agent() -> None:
    hive = folded([*MANAGED, reminder(1, NOW), reminder(2, NOW), reminder(3, NOW), reminder(4, NOW, "tester")])
    assert len(hive.reminders.of("coder")) == 3


# What the operator sets


def test_pausing_is_idempotent_both_ways_and_works_on_a_stopped_agent() -> None:
    def pause(paused: bool) -> controls.SetPaused:
        return controls.SetPaused(by=OPERATOR_BY, agent="coder", paused=paused)

    given = [*MANAGED, Stopped(agent="coder", exit="-")]
    check(given=given, when=pause(True), then=[Paused(agent="coder")])
    check(given=given, when=pause(False), then=[])
    check(given=[*given, Paused(agent="coder")], when=pause(True), then=[])
    check(given=[*given, Paused(agent="coder")], when=pause(False), then=[Resumed(agent="coder")])


def test_a_model_is_picked_and_unpicked() -> None:
    def pick(model: str | None) -> controls.SetModel:
        return controls.SetModel(by=OPERATOR_BY, agent="coder", model=model)

    check(given=MANAGED, when=pick("claude-x"), then=[ModelSet(agent="coder", model="claude-x")])
    check(given=MANAGED, when=pick(None), then=[])
    given = [*MANAGED, ModelSet(agent="coder", model="claude-x")]
    check(given=given, when=pick("claude-x"), then=[])
    check(given=given, when=pick(None), then=[ModelSet(agent="coder", model=None)])
    check(given=given, when=pick(" "), then=BadRequest)


def mounted(folder: str = "p", host_path: str = "/srv/p", *, read_only: bool = False) -> Mounted:
    return Mounted(agent="coder", host_path=host_path, folder=folder, read_only=read_only)


def mount(folder: str = "p", host_path: str = "/srv/p", *, read_only: bool = False) -> controls.Mount:
    return controls.Mount(by=OPERATOR_BY, agent="coder", host_path=host_path, folder=folder, read_only=read_only)


def test_a_folder_is_given_and_given_otherwise() -> None:
    check(given=MANAGED, when=mount(), then=[mounted()])
    unsaid = controls.Mount(by=OPERATOR_BY, agent="coder", host_path="/srv/p", folder="p")
    check(given=MANAGED, when=unsaid, then=[mounted()])
    check(given=[*MANAGED, mounted()], when=mount(), then=[])
    check(given=[*MANAGED, mounted()], when=mount(read_only=True), then=[mounted(read_only=True)])
    check(given=[*MANAGED, mounted()], when=mount(host_path="/other/p"), then=AlreadyDone)


def test_the_folders_of_an_agent_are_bounded() -> None:
    many: list[AnyEvent] = [mounted(f"p{number}", f"/srv/p{number}") for number in range(controls.MOUNTS_MAX)]
    check(given=[*MANAGED, *many], when=mount(), then=LimitReached)
    first = mounted("p0", "/srv/p0", read_only=True)
    check(given=[*MANAGED, *many], when=mount("p0", "/srv/p0", read_only=True), then=[first])


@pytest.mark.parametrize("path", ["p", "/srv/p"])
def test_a_folder_is_taken_away_by_its_name_or_path(path: str) -> None:
    when = controls.Unmount(by=OPERATOR_BY, agent="coder", path=path)
    check(given=[*MANAGED, mounted()], when=when, then=[Unmounted(agent="coder", folder="p")])
    check(given=MANAGED, when=when, then=NotFound)


def test_an_operators_name_has_one_token_at_a_time() -> None:
    def add(name: str = "mara") -> controls.AddOperator:
        return controls.AddOperator(by=OPERATOR_BY, name=name, token_hash="h")

    added, revoked = OperatorAdded(name="mara", token_hash="h"), OperatorRevoked(name="mara")
    revoke = controls.RevokeOperator(by=OPERATOR_BY, name="mara")
    check(when=add(), then=[added])
    check(given=[added], when=add(), then=AlreadyDone)
    check(given=[added], when=revoke, then=[revoked])
    check(given=[added, revoked], when=revoke, then=NotFound)
    check(given=[added, revoked], when=add(), then=[added])
    check(when=add("Mara Jade"), then=BadRequest)
