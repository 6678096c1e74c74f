"""Rules for disk limits: notice at 90 %, pause at 100 %, end of the pause; the operator has precedence."""

import pytest

from hive.deciders.controls import SetPaused
from hive.deciders.disk import RecordDiskUse
from hive.deciders.lifecycle import RecordStarted
from hive.events import AnyEvent, notices
from hive.events.agents import (
    ContainerLimits,
    DiskFull,
    DiskNearlyFull,
    DiskNoLongerFull,
    LimitsSet,
    Paused,
    Resumed,
    Started,
)

from .check import DAEMON_BY, MANAGED, OPERATOR_BY, check, folded, told

LIMITS = ContainerLimits(memory_mb=512, processes=64, disk_mb=100)
NEARLY = DiskNearlyFull(agent="coder", used_mb=90, limit_mb=100)
FULL = DiskFull(agent="coder", used_mb=100, limit_mb=100)


def use(used_mb: int, agent: str = "coder") -> RecordDiskUse:
    return RecordDiskUse(by=DAEMON_BY, agent=agent, used_mb=used_mb, limit_mb=100)


def all_told(notice: notices.Notice) -> list[AnyEvent]:
    return [told(id, to, notice) for id, to in enumerate(("coder", "manager", "operator"), 1)]


def given(*more: AnyEvent) -> list[AnyEvent]:
    return [*MANAGED, LimitsSet(agent="coder", limits=LIMITS), *more]


def test_nine_tenths_tell_agent_manager_and_operator_once() -> None:
    notice = notices.DiskNearlyFull(agent="coder", used_mb=90, limit_mb=100)
    hive = check(given=given(), when=use(90), then=[NEARLY, *all_told(notice)])
    assert not hive.agents.all["coder"].paused
    check(given=given(NEARLY), when=use(95), then=[])
    check(given=given(), when=use(89), then=[])


def test_manager_is_told_once_about_its_own_disk() -> None:
    notice = notices.DiskNearlyFull(agent="manager", used_mb=90, limit_mb=100)
    event = DiskNearlyFull(agent="manager", used_mb=90, limit_mb=100)
    check(given=given(), when=use(90, "manager"), then=[event, told(1, "manager", notice), told(2, "operator", notice)])


def test_full_disk_pauses_the_agent() -> None:
    notice = notices.DiskFull(agent="coder", used_mb=100, limit_mb=100)
    row = check(given=given(NEARLY), when=use(100), then=[FULL, *all_told(notice)]).agents.all["coder"]
    assert (row.paused, row.disk_full, row.running) == (True, True, True)
    check(given=given(FULL), when=use(120), then=[])


@pytest.mark.parametrize("used_mb", [99, 10])
def test_room_ends_the_pause(used_mb: int) -> None:
    freed = DiskNoLongerFull(agent="coder", used_mb=used_mb, limit_mb=100)
    row = check(given=given(FULL), when=use(used_mb), then=[freed]).agents.all["coder"]
    assert (row.paused, row.disk_full, row.disk_warned) == (False, False, used_mb >= 90)


def test_notice_is_repeated_after_the_disk_was_freed() -> None:
    freed = DiskNoLongerFull(agent="coder", used_mb=50, limit_mb=100)
    check(given=given(NEARLY), when=use(50), then=[freed])
    check(given=given(NEARLY, freed), when=use(20), then=[])
    again = notices.DiskNearlyFull(agent="coder", used_mb=90, limit_mb=100)
    check(given=given(NEARLY, freed), when=use(90), then=[NEARLY, *all_told(again)])


def test_operators_pause_is_not_changed() -> None:
    check(given=given(Paused(agent="coder")), when=use(100), then=[])
    paused = given(FULL, Paused(agent="coder"))
    assert folded(paused).agents.all["coder"].paused
    hive = check(given=paused, when=use(95), then=[])
    assert hive.agents.all["coder"].paused


def test_operator_may_resume_above_the_limit_by_a_tenth() -> None:
    resume = SetPaused(by=OPERATOR_BY, agent="coder", paused=False)
    check(given=given(FULL), when=resume, then=[Resumed(agent="coder")])
    resumed = given(FULL, Resumed(agent="coder"))
    check(given=resumed, when=use(105), then=[])
    full = DiskFull(agent="coder", used_mb=111, limit_mb=100)
    notice = notices.DiskFull(agent="coder", used_mb=111, limit_mb=100)
    check(given=resumed, when=use(111), then=[full, *all_told(notice)])


def test_start_records_changed_limits_once() -> None:
    start = RecordStarted(by=DAEMON_BY, agent="coder", incarnation="two", reason="deploy", limits=LIMITS)
    started = Started(agent="coder", incarnation="two", reason="deploy")
    check(given=MANAGED, when=start, then=[started, LimitsSet(agent="coder", limits=LIMITS)])
    check(given=given(), when=start, then=[started])


def test_unknown_or_destroyed_agent_is_ignored() -> None:
    check(given=given(), when=use(100, "ghost"), then=[])
