"""Recording rules: turns, transients, daemon events. Also checks that every rule and event is tested."""

import inspect
import sys
from pathlib import Path

from hive.deciders import RULES
from hive.deciders.base import Command
from hive.deciders.record import Boot, ClearTransient, EndTurn, RecordNotification, SetTransient, Shut, StartTurn, Warn
from hive.errors import NotFound
from hive.events import EVENT_TYPES
from hive.events.base import MessageId
from hive.events.daemon import Booted, ShutDown, Warned
from hive.events.notifications import NotificationDelivered, NotificationFailed
from hive.events.transient import TransientCleared, TransientSet
from hive.events.turns import TurnEnded, TurnStarted

from .check import DAEMON_BY, MANAGED, by, check, folded
from .everything import EVERYTHING


def test_turn_is_recorded_as_reported() -> None:
    start = StartTurn(by=by("coder"), agent="coder", model="m", wake_from="operator", message_ids=(MessageId(7),))
    started = TurnStarted(agent="coder", model="m", wake_from="operator", message_ids=(MessageId(7),))
    hive = check(given=MANAGED, when=start, then=[started])
    assert "coder" in hive.turns.current.rows
    report = TurnEnded(agent="coder", model="m", result_kind="ok", duration_ms=5)
    hive = check(given=[*MANAGED, started], when=EndTurn(by=by("coder"), report=report), then=[report])
    assert "coder" not in hive.turns.current.rows
    check(given=MANAGED, when=EndTurn(by=by("x"), report=TurnEnded(agent="x")), then=NotFound)


def test_transient_is_cleared_only_by_its_kind() -> None:
    held = TransientSet(agent="coder", kind="starting")
    check(when=SetTransient(by=DAEMON_BY, agent="coder", kind="starting"), then=[held])
    clear = ClearTransient(by=DAEMON_BY, agent="coder", kind="starting")
    check(given=[held], when=clear, then=[TransientCleared(agent="coder", kind="starting")])
    check(when=clear, then=[])
    check(given=[TransientSet(agent="coder", kind="stopping")], when=clear, then=[])


def test_boot_clears_transients() -> None:
    given = [TransientSet(agent="coder", kind="starting"), TransientSet(agent="tester", kind="rebuilding")]
    booted = Booted(hive_version="1", runtime="process")
    hive = check(given=given, when=Boot(by=DAEMON_BY, hive_version="1", runtime="process"), then=[booted])
    assert len(hive.transient.held) == 0


def test_boot_shutdown_and_warning_are_events() -> None:
    check(when=Shut(by=DAEMON_BY, keep_agents=True), then=[ShutDown(keep_agents=True)])
    check(when=Warn(by=DAEMON_BY, source="forge", text="down"), then=[Warned(source="forge", text="down")])


def test_webhook_delivery_and_failure_are_events() -> None:
    told = RecordNotification(by=DAEMON_BY, topic="question", subject="7", attempts=2)
    check(when=told, then=[NotificationDelivered(topic="question", subject="7", attempts=2)])
    not_told = RecordNotification(by=DAEMON_BY, topic="crash", subject="coder", error="no answer", attempts=3)
    check(when=not_told, then=[NotificationFailed(topic="crash", subject="coder", error="no answer", attempts=3)])


def test_every_command_has_a_rule() -> None:
    modules = [module for name, module in sys.modules.items() if name.startswith("hive.deciders.")]
    commands = {
        member
        for module in modules
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Command) and member is not Command
    }
    assert commands == set(RULES)


def test_every_command_is_tested() -> None:
    texts = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert [rule.__name__ for rule in RULES if f"{rule.__name__}(" not in texts] == []


def test_full_history_has_every_event_type() -> None:
    assert set(EVENT_TYPES) == {type(event).__name__ for event in EVERYTHING}
    assert folded(EVERYTHING).seq == len(EVERYTHING)
