"""Controls wait in the hub until the harness reports them done."""

from hive.clock import SystemClock
from hive.events.agents import Started
from hive.events.base import Seq, actor
from hive.projections.table import Recorded
from hive.sockets.hub import Hub


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


def test_control_is_removed_at_once_without_a_done_report() -> None:
    hub = queued("compact", "new_session")
    taken = [hub.next_control("coder", None) for _ in range(3)]
    assert [control and control["action"] for control in taken] == ["compact", "new_session", None]


def test_cancel_does_not_reach_the_next_run() -> None:
    hub = queued("cancel", "compact")
    started = Started(agent="coder", incarnation="new", reason="crash")
    hub.on_committed([Recorded(Seq(1), "2026-01-31T09:30:00.000Z", actor("test"), started)])
    control = hub.next_control("coder", "")
    assert control is not None
    assert control["action"] == "compact"
