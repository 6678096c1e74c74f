"""Rules for throttled agents: one event a minute, one notice to the operator an hour."""

from hive.deciders.lifecycle import RecordStarted
from hive.deciders.throttling import EVENT_EVERY_MS, NOTICE_EVERY_MS, RecordDisk, RecordThrottled
from hive.events import notices
from hive.events.agents import Share, ShareSet, Started, Throttled
from hive.events.daemon import DiskFreed, DiskLow

from .check import DAEMON_BY, MANAGED, NOW, check, told

REFUSED = RecordThrottled(by=DAEMON_BY, agent="coder", refused=7, share="events")
EVENT = Throttled(agent="coder", refused=7, share="events")
EVENT_WITH_NOTICE = Throttled(agent="coder", refused=7, share="events", told=True)
NOTICE = notices.Throttled(agent="coder", refused=7, share="events")


def test_first_refusal_is_recorded_and_told_to_the_operator() -> None:
    check(given=MANAGED, when=REFUSED, then=[EVENT_WITH_NOTICE, told(1, "operator", NOTICE)])


def test_second_event_within_a_minute_is_dropped() -> None:
    check(given=[*MANAGED, EVENT_WITH_NOTICE], when=REFUSED, at=NOW + EVENT_EVERY_MS - 1, then=[])


def test_event_after_a_minute_has_no_second_notice_within_the_hour() -> None:
    check(given=[*MANAGED, EVENT_WITH_NOTICE], when=REFUSED, at=NOW + EVENT_EVERY_MS, then=[EVENT])


def test_event_after_an_hour_has_a_notice_again() -> None:
    then = [EVENT_WITH_NOTICE, told(1, "operator", NOTICE)]
    check(given=[*MANAGED, EVENT_WITH_NOTICE], when=REFUSED, at=NOW + NOTICE_EVERY_MS, then=then)


def test_unknown_agent_is_ignored() -> None:
    check(given=MANAGED, when=RecordThrottled(by=DAEMON_BY, agent="nobody", refused=1, share="bytes"), then=[])


def test_share_of_the_configuration_is_recorded_when_it_changes() -> None:
    share = Share(events_per_minute=1_200)
    start = RecordStarted(by=DAEMON_BY, agent="coder", incarnation="i2", reason="deploy", share=share)
    started = Started(agent="coder", incarnation="i2", reason="deploy")
    check(given=MANAGED, when=start, then=[started, ShareSet(agent="coder", share=share)])
    check(given=[*MANAGED, ShareSet(agent="coder", share=share)], when=start, then=[started])


LOW = RecordDisk(by=DAEMON_BY, is_low=True, free_mb=500, floor_mb=512)
FREED = RecordDisk(by=DAEMON_BY, is_low=False, free_mb=600, floor_mb=512)
IS_LOW = DiskLow(free_mb=500, floor_mb=512)


def test_low_disk_is_one_event_and_one_notice_and_its_end_one_event() -> None:
    notice = notices.DiskLow(free_mb=500, floor_mb=512)
    check(given=MANAGED, when=LOW, then=[IS_LOW, told(1, "operator", notice)])
    check(given=[*MANAGED, IS_LOW], when=LOW, then=[])
    check(given=[*MANAGED, IS_LOW], when=FREED, then=[DiskFreed(free_mb=600)])
    check(given=[*MANAGED, IS_LOW, DiskFreed(free_mb=600)], when=FREED, then=[])


def test_disk_that_was_never_low_is_not_freed() -> None:
    check(given=MANAGED, when=FREED, then=[])
