"""Shares with injected time: what is paid, what is refused and for how long, and what only the harness may use."""

from collections.abc import Callable

import pytest

from hive.errors import LimitReached, ShareUsedUp
from hive.events.agents import Share
from hive.settings import LimitSettings
from hive.sockets.buckets import Bucket
from hive.sockets.shares import RESERVE_EVENTS_MIN, ROW_BYTES, AgentShare, Cost, Shares, What

SEND = Cost(events=1, copies=1)
REPORT = Cost(events=1, copies=1, harness=True)
LIVE = Cost(live=True, harness=True)
READ = Cost(reads=True)
SIZE = 1_000
LIMITS = LimitSettings(events_per_minute=60, burst_events=30, kib_per_minute=600, burst_kib=300)


class Time:
    """Seconds that only a test moves on."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def share(time: Time) -> AgentShare:
    return AgentShare("coder", lambda: LIMITS, time, lambda _: None)


def times(request: Callable[[], None], most: int = 10_000) -> int:
    """How often a request is paid until it is refused."""
    for done in range(most):
        try:
            request()
        except ShareUsedUp:
            return done
    return most


def test_bucket_refills_at_its_rate_up_to_the_burst(time: Time) -> None:
    bucket = Bucket(2.0, 10.0, time)
    bucket.take(10)
    assert bucket.wait_s(4) == pytest.approx(2.0)
    time.now_s = 2.0
    assert bucket.wait_s(4) == 0
    time.now_s = 100.0
    assert bucket.level() == 10.0


def test_events_stop_at_the_burst_and_go_on_at_the_rate(time: Time, share: AgentShare) -> None:
    def send() -> None:
        share.take("send", SEND, SIZE, own=False)

    assert times(send) == LIMITS.burst_events
    with pytest.raises(ShareUsedUp, match=r"send is refused: coder has used up its share of 60 events a minute") as no:
        send()
    time.now_s += no.value.retry_after_ms / 1000
    send()
    time.now_s += 60.0
    assert times(send) == LIMITS.burst_events, "a bucket holds no more than the burst"


def test_bytes_are_counted_with_a_row_for_each_event(share: AgentShare) -> None:
    size = 50 * 1024
    paid = times(lambda: share.take("send", SEND, size, own=False))
    assert paid == LIMITS.burst_kib * 1024 // (size + ROW_BYTES)


def test_broadcast_pays_for_each_copy(share: AgentShare) -> None:
    assert times(lambda: share.take("send", SEND, SIZE, own=False, copies=9)) == LIMITS.burst_events // 10
    with pytest.raises(LimitReached, match="more than coder's whole burst"):
        share.take("send", SEND, SIZE, own=False, copies=LIMITS.burst_events)


def test_idempotency_key_costs_an_event(share: AgentShare) -> None:
    assert times(lambda: share.take("send", SEND, SIZE, own=False, keyed=True)) == LIMITS.burst_events // 2


def test_reports_of_the_harness_have_a_reserve_that_nobody_else_can_use(time: Time, share: AgentShare) -> None:
    def report(own: bool) -> Callable[[], None]:
        return lambda: share.take("turn_ended", REPORT, SIZE, own=own)

    assert times(report(own=False)) == LIMITS.burst_events
    assert times(lambda: share.take("send", SEND, SIZE, own=True)) == 0, "tools use the agent's share"
    assert times(report(own=True)) == RESERVE_EVENTS_MIN
    time.now_s += 10.0
    assert times(report(own=False)) == 0, "the reserve refills first"
    assert times(report(own=True)) == 10


def test_replies_and_live_lines_use_the_traffic_and_not_the_log(time: Time, share: AgentShare) -> None:
    assert times(lambda: share.take("live", LIVE, 100 * 1024, own=False)) == 3
    with pytest.raises(ShareUsedUp, match="600 KiB of replies and live lines"):
        share.check("recent", READ, 0, own=False)
    time.now_s += 60.0
    share.check("recent", READ, 0, own=False)
    share.replied(10 * 1024 * 1024)
    with pytest.raises(ShareUsedUp):
        share.check("recent", READ, 0, own=False)


def test_deliveries_are_limited_to_what_can_be_paid(share: AgentShare) -> None:
    assert share.affordable(2, 32, own=False) == LIMITS.burst_events // 2
    share.charge(LIMITS.burst_events)
    assert share.affordable(2, 32, own=False) == 0
    assert share.wait_s(2, own=False) == pytest.approx(2.0)
    assert share.affordable(2, 32, own=True) == RESERVE_EVENTS_MIN // 2


def test_agents_own_share_replaces_the_hosts(share: AgentShare) -> None:
    share.ask_for(Share(burst_events=50))
    assert times(lambda: share.take("send", SEND, SIZE, own=False)) == 50
    share.ask_for(None)
    assert times(lambda: share.take("send", SEND, SIZE, own=False)) == 0, "what was used stays used"


def test_refusals_are_reported_once_a_minute(time: Time) -> None:
    reports = list[tuple[str, int, What]]()
    shares = Shares(lambda: LIMITS, lambda *report: reports.append(report), time)
    for _ in range(100):
        shares.of("coder").refusal("events", "send", 1.0)
    assert reports == [("coder", 1, "events")]
    time.now_s += 60.0
    shares.of("coder").refusal("bytes", "send", 1.0)
    assert reports[1:] == [("coder", 100, "bytes")]
