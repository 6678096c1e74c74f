"""Kills the daemon after each event of every lifecycle scenario.

The test follows the log from outside. The next daemon must finish everything that was decided.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import msgspec
import pytest

from hive.events.log import Row
from hive.sockets.client import Declined, Unreachable

from .hive_process import DEADLINE_S, HiveProcess, eventually

pytestmark = pytest.mark.system

LOOK_STEP_S = 0.0005
NOT_THE_STORYS = frozenset({"Booted", "IncarnationSeen", "AxesSeeded"})
HARNESS_ONLY = frozenset({"MessageDelivered", "MessageRequeued"})
"""Events that a connecting harness or a starting daemon adds, outside the scenario."""
TTL_S = 0.3

Events = list[dict[str, Any]]
Request = Callable[[HiveProcess, str], None]


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """A lifecycle scenario, run once per kill position."""

    name: str
    before: Request
    """Prepare the agent."""
    tell: Request
    """The request."""
    last: Callable[[Events, str], bool]
    """Whether the scenario has completed."""
    after: Callable[[HiveProcess, str, Events], None]
    """Checks the final state, wherever the daemon was killed."""
    fresh: bool = False
    """Each run needs a new agent."""
    ends_daemon: bool = False
    """The complete scenario ends the daemon."""


# Preparation


def runs(hive: HiveProcess, agent: str) -> None:
    if agent not in hive.ask("list")["agents"]:
        hive.spawn(agent)
    hive.ask("start", scope={"agent_names": [agent]})


def rests(hive: HiveProcess, agent: str) -> None:
    runs(hive, agent)
    hive.ask("stop", scope={"agent_names": [agent]}, graceful=False)


def runs_and_has_threads(hive: HiveProcess, agent: str) -> None:
    runs(hive, agent)
    with hive.agent(agent) as lines:
        lines.ask("ask_operator", question="What now?")
        lines.ask("ask", to="manager", question="What now?")
        lines.ask("remind", message="in an hour", delay_seconds=3600)
    hive.ask("send", to=agent, body="never read")


def nothing(_hive: HiveProcess, _agent: str) -> None:
    pass


# Requests


def act(cmd: str, **fields: Any) -> Request:
    return lambda hive, agent: ignore(hive.ask(cmd, name=agent, **fields))


def act_on_scope(cmd: str) -> Request:
    return lambda hive, agent: ignore(hive.ask(cmd, scope={"agent_names": [agent]}))


def request_and_approve(hive: HiveProcess, agent: str) -> None:
    hive.ask("approve", id=hive.ask("request_spawn", name=agent)["id"])


def ask_with_ttl(hive: HiveProcess, agent: str) -> None:
    with hive.agent(agent) as lines:
        lines.ask("ask_operator", question="Quickly?", ttl_seconds=TTL_S)


def remind(hive: HiveProcess, agent: str) -> None:
    with hive.agent(agent) as lines:
        lines.ask("remind", message="look again", delay_seconds=TTL_S)


def crash(hive: HiveProcess, agent: str) -> None:
    run = hive.running(agent)
    assert run is not None
    os.kill(run.pid, signal.SIGKILL)


def go_down(hive: HiveProcess, _agent: str) -> None:
    hive.ask("shutdown")


def ignore(_: object) -> None:
    pass


# Completion


def cleared(events: Events, agent: str) -> bool:
    return any(row["type"] == "TransientCleared" and row["agent"] == agent for row in events)


def told(events: Events, agent: str) -> bool:
    return any(row["type"] == "MessageSent" and row["to"] == agent for row in events)


def shut_down(events: Events, _agent: str) -> bool:
    return any(row["type"] == "ShutDown" for row in events)


# Final checks


def is_running(hive: HiveProcess, agent: str, events: Events) -> None:
    row = hive.replayed().agents.all[agent]
    assert row.running
    assert row.wanted_running
    run = hive.running(agent)
    assert run is not None
    assert run.incarnation == row.incarnation == [one for one in events if one["type"] == "Started"][-1]["incarnation"]


def is_spawned(hive: HiveProcess, agent: str, events: Events) -> None:
    is_running(hive, agent, events)
    assert len([row for row in events if row["type"] == "Spawned"]) == 1
    assert kicks(events, agent) == 0


def is_started(hive: HiveProcess, agent: str, events: Events) -> None:
    is_running(hive, agent, events)
    assert kicks(events, agent) == len([row for row in events if row["type"] == "Started"])


def is_up_again(hive: HiveProcess, agent: str, _events: Events) -> None:
    """A container that was told to stop just before the crash may end shortly after the next daemon took it over."""
    for name in (agent, "manager"):
        eventually(lambda name=name: runs_as_recorded(hive, name), f"{name} runs again")


def runs_as_recorded(hive: HiveProcess, agent: str) -> bool:
    row, run = hive.replayed().agents.all[agent], hive.running(agent)
    return row.running and row.wanted_running and run is not None and run.incarnation == row.incarnation


def is_restarted_once(hive: HiveProcess, agent: str, events: Events) -> None:
    eventually(lambda: hive.events("Started", first=events[0]["seq"], agent=agent), "it is started again")
    hive.becomes_whole()
    events = hive.events(first=events[0]["seq"])
    is_started(hive, agent, events)
    assert [row["reason"] for row in events if row["type"] == "Crashed"] == ["signal 9 (SIGKILL)"]
    assert [row["reason"] for row in events if row["type"] == "Started"] == ["crash"]


def is_rebuilt(hive: HiveProcess, agent: str, events: Events) -> None:
    is_started(hive, agent, events)
    assert [row["ok"] for row in events if row["type"] == "Rebuilt"] == [True]


def is_stopped(hive: HiveProcess, agent: str, events: Events) -> None:
    row = hive.replayed().agents.all[agent]
    assert not row.running
    assert not row.wanted_running
    assert hive.running(agent) is None
    assert not [row for row in events if row["type"] in ("Started", "Crashed")]


def is_killed(hive: HiveProcess, agent: str, events: Events) -> None:
    is_stopped(hive, agent, events)
    assert len([row for row in events if row["type"] == "Killed"]) == 1


def is_destroyed(hive: HiveProcess, agent: str, events: Events) -> None:
    state = hive.replayed()
    assert state.agents.living_one(agent) is None
    assert hive.running(agent) is None
    assert not hive.paths.agent_socket(agent).exists()
    assert len([row for row in events if row["type"] == "Destroyed"]) == 1
    assert not state.questions.threads_of(agent)
    assert not state.reminders.of(agent)
    assert not state.messages.waiting_count(agent)
    assert {row["answer"] for row in events if row["type"] == "QuestionResolved"} == {"[cancelled]"}


def is_approved(hive: HiveProcess, agent: str, events: Events) -> None:
    (row,) = [one for one in hive.replayed().approvals.all if one.agent == agent]
    if row.status == "pending":  # The daemon was killed between request and decision.
        hive.ask("approve", id=row.id)
        hive.becomes_whole()
        events = hive.events(first=events[0]["seq"])
    is_spawned(hive, agent, events)
    assert [one["status"] for one in events if one["type"] == "ApprovalResolved"] == ["approved"]


def is_expired_once(hive: HiveProcess, agent: str, events: Events) -> None:
    eventually(lambda: told(hive.events(first=events[0]["seq"]), agent), "the asker is told")
    events = hive.events(first=events[0]["seq"])
    assert [row["answer"] for row in events if row["type"] == "QuestionResolved"] == ["[expired]"]
    assert notices(events, agent) == ["operator_answered"]


def is_reminded_once(hive: HiveProcess, agent: str, events: Events) -> None:
    eventually(lambda: told(hive.events(first=events[0]["seq"]), agent), "the reminder fires")
    events = hive.events(first=events[0]["seq"])
    assert len([row for row in events if row["type"] == "ReminderFired"]) == 1
    assert notices(events, agent) == ["reminder"]


def notices(events: Events, agent: str) -> list[str]:
    return [
        msgspec.json.decode(row["body"])["event"]
        for row in events
        if row["type"] == "MessageSent" and row["to"] == agent and row["from"] == "system"
    ]


def kicks(events: Events, agent: str) -> int:
    return notices(events, agent).count("kicked")


SCENARIOS = (
    Scenario(name="spawn", before=nothing, tell=act("spawn"), last=cleared, after=is_spawned, fresh=True),
    Scenario(name="start", before=rests, tell=act_on_scope("start"), last=cleared, after=is_started),
    Scenario(name="stop", before=runs, tell=act_on_scope("stop"), last=cleared, after=is_stopped),
    Scenario(name="kill", before=runs, tell=act("kill"), last=cleared, after=is_killed),
    Scenario(name="restart", before=runs, tell=act("restart"), last=cleared, after=is_started),
    Scenario(name="rebuild", before=runs, tell=act("rebuild"), last=cleared, after=is_rebuilt),
    Scenario(
        name="destroy", before=runs_and_has_threads, tell=act("destroy"), last=cleared, after=is_destroyed, fresh=True
    ),
    Scenario(name="crash", before=runs, tell=crash, last=cleared, after=is_restarted_once, fresh=True),
    Scenario(name="down", before=runs, tell=go_down, last=shut_down, after=is_up_again, ends_daemon=True),
    Scenario(name="approve", before=nothing, tell=request_and_approve, last=cleared, after=is_approved, fresh=True),
    Scenario(name="question", before=runs, tell=ask_with_ttl, last=told, after=is_expired_once),
    Scenario(name="reminder", before=runs, tell=remind, last=told, after=is_reminded_once),
)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_scenario_completes_when_the_daemon_is_killed_after_each_event(hive: HiveProcess, scenario: Scenario) -> None:
    for nth in count(1):
        agent = f"coder-{nth}" if scenario.fresh else "coder"
        scenario.before(hive, agent)
        first = settled(hive) + 1
        was_over = run_until(hive, scenario, agent, first, nth)
        if was_over and scenario.ends_daemon:
            hive.await_end()
        if not hive.alive:
            hive.up()
        hive.becomes_whole()
        scenario.after(hive, agent, hive.events(first=first))
        hive.check_files()
        if was_over:
            break
    assert nth > 2, "a scenario has more than two events"
    running = {row.name for row in hive.replayed().agents.all if row.running}
    eventually(lambda: len(hive.programs()) == len(running), "no container is left over")


def settled(hive: HiveProcess) -> int:
    """The head of the log after every harness has connected. Later events belong to the scenario."""

    def all_have_said_hello() -> bool:
        rows = hive.replayed().agents.all
        return hive.is_whole() is None and all(row.hello == row.incarnation for row in rows if row.running)

    eventually(all_have_said_hello, "every harness is connected")
    return hive.head()


def run_until(hive: HiveProcess, scenario: Scenario, agent: str, first: int, nth: int) -> bool:
    """Run the scenario and kill the daemon when the nth event is visible. True if it completed before that."""

    def tell() -> None:
        with contextlib.suppress(Unreachable, Declined, OSError, EOFError):
            scenario.tell(hive, agent)

    telling = threading.Thread(target=tell, daemon=True)
    deadline = time.monotonic() + DEADLINE_S
    with hive.reading() as reader:
        telling.start()
        while True:
            rows = [row for row in reader.rows(first) if belongs_to_the_scenario(row)]
            if len(rows) >= nth:
                hive.kill()
                telling.join()
                return False
            if scenario.last([{"type": row.type, **msgspec.json.decode(row.data)} for row in rows], agent):
                telling.join()
                return True
            assert time.monotonic() < deadline, [row.type for row in rows]
            time.sleep(LOOK_STEP_S)


def belongs_to_the_scenario(row: Row) -> bool:
    return row.type not in NOT_THE_STORYS and not (row.type in HARNESS_ONLY and row.by.startswith("agent:"))
