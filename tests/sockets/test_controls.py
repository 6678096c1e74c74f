"""Controls wait in the hub until the harness reports them done."""

import asyncio

from hive.clock import SystemClock
from hive.events.agents import Started
from hive.events.base import Seq, actor
from hive.projections.table import Recorded
from hive.sockets.hub import Hub

STARTED = Recorded(
    Seq(1), "2026-01-31T09:30:00.000Z", str(actor("test")), Started(agent="coder", incarnation="new", reason="crash")
)
DEADLINE_S = 30.0


def queued(*actions: str) -> Hub:
    hub = Hub(SystemClock())
    for action in actions:
        hub.add_control("coder", {"action": action})
    return hub


def test_control_is_repeated_until_it_is_done() -> None:
    hub = queued("compact", "new_session")
    first = hub.next_control("coder", "")
    assert first is not None
    assert first["action"] == "compact"
    assert hub.next_control("coder", "an older one") == first
    second = hub.next_control("coder", first["id"])
    assert second is not None
    assert second["action"] == "new_session"
    assert second["id"] != first["id"]
    assert hub.next_control("coder", first["id"]) == second
    assert hub.next_control("coder", second["id"]) is None


def test_waiting_caller_learns_whether_the_harness_took_the_control() -> None:
    async def scene() -> None:
        hub = Hub(SystemClock())
        done = hub.add_control("coder", {"action": "compact"})
        taken = asyncio.ensure_future(hub.control_taken("coder", done, DEADLINE_S))
        await asyncio.sleep(0)
        assert hub.next_control("coder", "") is not None
        assert hub.next_control("coder", done) is None
        assert await taken
        late = hub.add_control("coder", {"action": "compact"})
        assert not await hub.control_taken("coder", late, 0)
        assert hub.next_control("coder", "") is None, "a refused control is dropped"
        gone = asyncio.ensure_future(
            hub.control_taken("coder", hub.add_control("coder", {"action": "cancel"}), DEADLINE_S)
        )
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert hub.next_control("coder", "") is None, "the control of a caller that hung up is dropped"
        ended = hub.add_control("coder", {"action": "cancel"})
        waits = asyncio.ensure_future(hub.control_taken("coder", ended, DEADLINE_S))
        await asyncio.sleep(0)
        hub.on_committed([STARTED])
        assert not await waits

    asyncio.run(scene())


def test_control_is_removed_at_once_without_a_done_report() -> None:
    hub = queued("compact", "new_session")
    taken = [hub.next_control("coder", None) for _ in range(3)]
    assert [control and control["action"] for control in taken] == ["compact", "new_session", None]


def test_cancel_does_not_reach_the_next_run() -> None:
    hub = queued("cancel", "compact")
    hub.on_committed([STARTED])
    control = hub.next_control("coder", "")
    assert control is not None
    assert control["action"] == "compact"
