"""Time parsing and formatting, and one contract for the system clock and the tests' manual clock."""

import threading
from collections.abc import Callable

import pytest
from actors.manual_clock import ManualClock
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hive.clock import Clock, SystemClock, TimeMs, parse_rfc3339, rfc3339
from hive.errors import BadRequest

FIRST_MS = -62_135_596_800_000
"""The start of the year 1."""
LAST_MS = 253_402_300_799_999
"""The end of the year 9999."""
PATIENCE_S = 30.0


@settings(max_examples=300, deadline=None, database=None)
@given(at=st.integers(min_value=FIRST_MS, max_value=LAST_MS))
@example(at=FIRST_MS)
def test_time_round_trips(at: TimeMs) -> None:
    text = rfc3339(at)
    assert text.endswith("Z")
    assert len(text) == len("2026-01-31T09:30:00.125Z")
    assert parse_rfc3339(text) == at


@settings(max_examples=100, deadline=None, database=None)
@given(times=st.lists(st.integers(min_value=FIRST_MS, max_value=LAST_MS), min_size=2, max_size=5))
def test_times_sort_as_text(times: list[TimeMs]) -> None:
    assert sorted(map(rfc3339, times)) == [rfc3339(at) for at in sorted(times)]


@pytest.mark.parametrize(
    "text",
    ["2026-01-31T09:30:00Z", "2026-01-31T10:30:00+01:00", "2026-01-31T09:30:00.000000Z", "2026-01-31 09:30:00Z"],
)
def test_time_with_any_offset_is_parsed(text: str) -> None:
    assert parse_rfc3339(text) == 1_769_851_800_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-01-31",
        "2026-01-31T09:30:00",
        "2026-02-30T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "\0",
        "9" * 99,
    ],
)
def test_invalid_time_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_rfc3339(text)


Move = Callable[[Clock], None]


def wait_for_it(_: Clock) -> None:
    """The system clock cannot be set; nothing to do."""


def by_hand(clock: Clock) -> None:
    assert isinstance(clock, ManualClock)
    clock.advance(100)


@pytest.fixture(params=[(SystemClock, wait_for_it), (ManualClock, by_hand)], ids=["system", "by hand"])
def moving(request: pytest.FixtureRequest) -> tuple[Clock, Move]:
    kind, move = request.param
    return kind(), move


def test_call_runs_at_or_after_its_time(moving: tuple[Clock, Move]) -> None:
    clock, move = moving
    came, at = threading.Event(), clock.now_ms() + 20
    found: list[TimeMs] = []

    def then() -> None:
        found.append(clock.now_ms())
        came.set()

    clock.call_at(at, then)
    move(clock)
    assert came.wait(PATIENCE_S)
    assert found[0] >= at
    assert len(found) == 1


def test_call_for_past_time_runs_at_once(moving: tuple[Clock, Move]) -> None:
    clock, _ = moving
    came = threading.Event()
    clock.call_at(clock.now_ms() - 1_000, came.set)
    assert came.wait(PATIENCE_S)


def test_cancelled_call_does_not_run(moving: tuple[Clock, Move]) -> None:
    clock, move = moving
    for delay_ms in (20, 100, 1_000, 10_000):  # Until it is cancelled in time.
        came, at = threading.Event(), clock.now_ms() + delay_ms
        cancel = clock.call_at(at, came.set)
        cancel()
        if clock.now_ms() < at:
            break
    after = threading.Event()
    clock.call_at(at + 20, after.set)
    move(clock)
    assert after.wait(PATIENCE_S)
    assert not came.is_set()
    cancel()


def test_call_may_be_cancelled_after_it_ran(moving: tuple[Clock, Move]) -> None:
    clock, _ = moving
    came = threading.Event()
    cancel = clock.call_at(clock.now_ms(), came.set)
    assert came.wait(PATIENCE_S)
    cancel()
