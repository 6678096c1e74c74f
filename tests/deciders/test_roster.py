"""Rules for the roster, for crash watch observations and for the operator's settings."""

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
from hive.events.operators import OperatorAdded, OperatorRevoked, SignedIn, SignInRefused
from hive.events.questions import QuestionAdded, QuestionResolved
from hive.events.reminders import ReminderDropped, ReminderFired, ReminderSet
from hive.events.transient import TransientSet

from .check import DAEMON_BY, MANAGED, NOW, OPERATOR_BY, by, check, folded, sent, spawned, told, tombstone

# Spawn, revive, purge


def test_manager_can_be_spawned_first() -> None:
    check(when=Spawn(by=DAEMON_BY, agent="manager"), then=[AgentAdded(agent="manager", slot=1)])


def test_spawned_agent_is_wanted_running_with_new_slot() -> None:
    given = [*MANAGED, *tombstone("gone", 9), Purged(agent="gone")]
    hive = check(given=given, when=Spawn(by=OPERATOR_BY, agent="gone"), then=[AgentAdded(agent="gone", slot=10)])
    row = hive.agents.all["gone"]
    assert (row.wanted_running, row.act, row.spawned) == (True, "spawn", False)


@pytest.mark.parametrize(
    ("agent", "says"), [("coder", "exists already"), ("manager", "exists already"), ("gone", "revive it or purge it")]
)
def test_spawn_of_taken_name_is_refused_with_hint(agent: str, says: str) -> None:
    spawn = Spawn(by=OPERATOR_BY, agent=agent)
    check(given=[*MANAGED, *tombstone("gone", 9)], when=spawn, then=AlreadyDone, says=says)


def test_number_of_agents_is_bounded() -> None:
    crowd: list[AnyEvent] = [AgentAdded(agent=f"x{number}", slot=number) for number in range(AGENTS_MAX)]
    check(given=crowd, when=Spawn(by=OPERATOR_BY, agent="coder"), then=LimitReached)
    check(given=[*tombstone("gone", 9_999), *crowd], when=Revive(by=OPERATOR_BY, agent="gone"), then=LimitReached)


def test_revived_agent_keeps_its_slot() -> None:
    given = [*MANAGED, *tombstone("gone", 9)]
    hive = check(given=given, when=Revive(by=OPERATOR_BY, agent="gone"), then=[Revived(agent="gone")])
    row = hive.agents.all["gone"]
    assert (row.slot, row.act, row.wanted_running, row.destroyed_ms) == (9, "spawn", True, None)


def test_revive_or_purge_of_living_agent_is_refused() -> None:
    check(given=MANAGED, when=Revive(by=OPERATOR_BY, agent="coder"), then=AlreadyDone)
    check(given=MANAGED, when=Revive(by=OPERATOR_BY, agent="nobody"), then=NotFound)
    check(given=MANAGED, when=RecordPurged(by=OPERATOR_BY, agent="coder"), then=NotFound)
    check(given=MANAGED, when=RecordPurged(by=OPERATOR_BY, agent="nobody"), then=NotFound)


def test_purge_drops_agent_and_inbox() -> None:
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


def test_destroyed_agent_leaves_tombstone() -> None:
    then = [
        Destroyed(agent="coder"),
        told(1, "operator", unread("coder", 0)),
        told(2, "manager", unread("coder", 0)),
    ]
    hive = check(given=MANAGED, when=destroy(), then=then)
    assert [row.name for row in hive.agents.tombstones()] == ["coder"]
    assert check(given=MANAGED, when=destroy(purge=True), then=[Destroyed(agent="coder", purge=True), *then[1:]])


def test_destroy_of_manager_is_refused() -> None:
    check(given=MANAGED, when=destroy("manager"), then=Refused)
    check(given=MANAGED, when=destroy("nobody"), then=NotFound)


def test_destroy_settles_open_work_and_tells_other_side() -> None:
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


def test_unchanged_axes_write_no_event() -> None:
    check(given=MANAGED, when=look(), then=[])
    check(given=MANAGED, when=look("nobody"), then=[])
    stale = [NeedsUpdate(agent="coder"), NeedsLogin(agent="coder"), Unresponsive(agent="coder")]
    check(given=[*MANAGED, *stale], when=look(key_ms=None, stale=True, connected=False), then=[])


@pytest.mark.parametrize(("agent", "to"), [("coder", "manager"), ("manager", "operator")])
def test_login_changes_are_told(agent: str, to: str) -> None:
    then = [NeedsLogin(agent=agent), told(1, to, notices.NeedsLogin(agent=agent))]
    check(given=MANAGED, when=look(agent, key_ms=None), then=then)
    back = [LoggedIn(agent=agent), told(1, to, notices.LoggedIn(agent=agent))]
    check(given=[*MANAGED, NeedsLogin(agent=agent)], when=look(agent, key_ms=None, credentials_ms=NOW), then=back)


def test_becoming_stale_is_told_once() -> None:
    then = [NeedsUpdate(agent="coder"), told(1, "manager", notices.NeedsUpdate(agent="coder"))]
    check(given=MANAGED, when=look(stale=True), then=then)
    check(given=[*MANAGED, NeedsUpdate(agent="coder")], when=look(), then=[])


def test_agent_under_rebuild_or_replaced_is_not_stale() -> None:
    held = TransientSet(agent="coder", kind="rebuilding")
    check(given=[*MANAGED, held], when=look(stale=True), then=[])
    check(given=MANAGED, when=look(stale=True, revision="b" * 40), then=[])


def test_unresponsive_harness_sends_no_message() -> None:
    check(given=MANAGED, when=look(connected=False), then=[Unresponsive(agent="coder")])
    check(given=[*MANAGED, Unresponsive(agent="coder")], when=look(), then=[Responsive(agent="coder")])
    check(given=[*MANAGED, Stopped(agent="coder", exit="-")], when=look(connected=False), then=[])


def test_first_observation_only_seeds() -> None:
    then = [AxesSeeded(agent="coder", needs_login=True, needs_update=True)]
    hive = check(given=MANAGED, when=look(key_ms=None, stale=True, connected=False, seeds=True), then=then)
    assert hive.agents.all["coder"].needs_login
    check(given=MANAGED, when=look(seeds=True), then=[])


def test_refused_credentials_count_only_when_newer() -> None:
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


def test_rate_limit_is_set_and_cleared_once() -> None:
    def report(until: int | None) -> axes.ReportRateLimit:
        return axes.ReportRateLimit(by=by("coder"), agent="coder", until_ms=until)

    check(given=MANAGED, when=report(NOW + 5), then=[RateLimited(agent="coder", until_ms=NOW + 5)])
    limited = [*MANAGED, RateLimited(agent="coder", until_ms=NOW + 5)]
    check(given=limited, when=report(NOW + 5), then=[])
    check(given=limited, when=report(None), then=[RateLimited(agent="coder", until_ms=None)])
    check(given=MANAGED, when=report(None), then=[])


def test_status_is_bounded() -> None:
    def status(text: str) -> axes.SetStatus:
        return axes.SetStatus(by=by("coder"), agent="coder", text=text)

    check(given=MANAGED, when=status("parsing"), then=[StatusSet(agent="coder", text="parsing")])
    check(given=MANAGED, when=status("x" * (LABEL_MAX_CHARS + 1)), then=BadRequest)


# Reminders


def remind(**fields: Any) -> Remind:
    return Remind(by=by("coder"), agent="coder", **{"message": "look", **fields})


def reminder(id: int, due_ms: int, agent: str = "coder") -> ReminderSet:
    return ReminderSet(id=ReminderId(id), agent=agent, message="look", due_ms=due_ms)


def test_reminder_has_delay_or_time() -> None:
    check(given=MANAGED, when=remind(delay_ms=1_500), then=[reminder(1, NOW + 1_500)])
    check(given=MANAGED, when=remind(due_ms=NOW + 7), then=[reminder(1, NOW + 7)])
    check(given=MANAGED, when=remind(delay_ms=0), then=[reminder(1, NOW)])
    check(given=MANAGED, when=remind(due_ms=5), then=[reminder(1, 5)])
    check(given=MANAGED, when=remind(delay_ms=AHEAD_MAX_MS), then=[reminder(1, NOW + AHEAD_MAX_MS)])


@pytest.mark.parametrize("agent", ["nobody", "gone"])
def test_reminder_of_unknown_agent_is_refused(agent: str) -> None:
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
def test_malformed_reminder_is_refused(fields: dict[str, object]) -> None:
    check(given=MANAGED, when=remind(**fields), then=BadRequest)


def test_pending_reminders_are_bounded() -> None:
    assert PENDING_MAX == 50
    many: list[AnyEvent] = [reminder(number, NOW + 1) for number in range(1, PENDING_MAX + 1)]
    check(given=[*MANAGED, *many], when=remind(delay_ms=1), then=LimitReached)
    fired = ReminderFired(id=ReminderId(1), agent="coder")
    check(given=[*MANAGED, *many, fired], when=remind(delay_ms=1), then=[reminder(51, NOW + 1)])


def test_due_reminder_is_delivered_once_from_system() -> None:
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


def test_model_is_set_and_reset() -> None:
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


def test_mount_is_added_and_changed() -> None:
    check(given=MANAGED, when=mount(), then=[mounted()])
    unsaid = controls.Mount(by=OPERATOR_BY, agent="coder", host_path="/srv/p", folder="p")
    check(given=MANAGED, when=unsaid, then=[mounted()])
    check(given=[*MANAGED, mounted()], when=mount(), then=[])
    check(given=[*MANAGED, mounted()], when=mount(read_only=True), then=[mounted(read_only=True)])
    check(given=[*MANAGED, mounted()], when=mount(host_path="/other/p"), then=AlreadyDone)


def test_mounts_are_bounded() -> None:
    many: list[AnyEvent] = [mounted(f"p{number}", f"/srv/p{number}") for number in range(controls.MOUNTS_MAX)]
    check(given=[*MANAGED, *many], when=mount(), then=LimitReached)
    first = mounted("p0", "/srv/p0", read_only=True)
    check(given=[*MANAGED, *many], when=mount("p0", "/srv/p0", read_only=True), then=[first])


@pytest.mark.parametrize("path", ["p", "/srv/p"])
def test_unmount_takes_name_or_path(path: str) -> None:
    when = controls.Unmount(by=OPERATOR_BY, agent="coder", path=path)
    check(given=[*MANAGED, mounted()], when=when, then=[Unmounted(agent="coder", folder="p")])
    check(given=MANAGED, when=when, then=NotFound)


def test_sign_ins_are_recorded() -> None:
    signed_in = controls.SignIn(by=OPERATOR_BY, name="mara", source="127.0.0.1", link=True)
    check(when=signed_in, then=[SignedIn(name="mara", source="127.0.0.1", link=True)])
    refused = controls.RefuseSignIn(by=OPERATOR_BY, source="::1", attempts=3)
    check(when=refused, then=[SignInRefused(source="::1", attempts=3)])


def test_operator_has_one_token_at_a_time() -> None:
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
