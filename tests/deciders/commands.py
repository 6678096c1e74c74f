"""Hypothesis strategies for commands: arbitrary ones, and ones that fit the state."""

import json
import typing
from typing import Any

import msgspec
from hypothesis import strategies as st

from hive.deciders import RULES
from hive.deciders.base import Command
from hive.deciders.messages import COUNTED_REASONS, UNCOUNTED_REASONS
from hive.events.agents import Budget, ContainerLimits
from hive.events.base import By
from hive.events.egress import ModelUsed
from hive.events.turns import TurnEnded
from hive.turn_columns import Price

NAMES = ("manager", "a", "b", "c")
"""Few names, so that commands affect each other."""
INCARNATIONS = ("one", "two", "three")

st.register_type_strategy(int, st.integers(min_value=-(2**63), max_value=2**63 - 1))  # Nothing larger enters a socket.

_BYS = st.sampled_from(
    [By("operator", "mara", 1000, "host"), By("actor", "daemon"), *(By("agent", name) for name in NAMES)]
)
_IDS = st.integers(min_value=1, max_value=12)
_TIMES = st.integers(min_value=0, max_value=90_000)
_FITTING: dict[str, st.SearchStrategy[Any]] = {
    "agent": st.sampled_from(NAMES),
    "sender": st.sampled_from((*NAMES, "operator")),
    "to": st.sampled_from((*NAMES, "operator", "*", "a@berlin")),
    "asker": st.sampled_from(NAMES),
    "target": st.sampled_from((*NAMES, None, "b@berlin")),
    "answerer": st.sampled_from((*NAMES, "operator")),
    "canceller": st.sampled_from((*NAMES, "operator")),
    "requester": st.sampled_from(("manager", "operator")),
    "incarnation": st.sampled_from(INCARNATIONS),
    "alive": st.frozensets(st.sampled_from(INCARNATIONS), max_size=2),
    "reason": st.sampled_from(sorted(COUNTED_REASONS | UNCOUNTED_REASONS)),
    "budget": st.sampled_from((None, Budget(hours=1, turns=1), Budget(hours=24, tokens=100), Budget(hours=2, usd=0.5))),
    "limits": st.sampled_from((None, ContainerLimits(memory_mb=512, disk_mb=10), ContainerLimits(processes=9))),
    "used_mb": st.sampled_from((0, 89, 90, 99, 100, 120, 300)),
    "limit_mb": st.sampled_from((0, 100)),
    "recipients": st.sampled_from([None, (), ("a", "b")]),
    "id": _IDS,
    "ids": st.lists(_IDS, max_size=4).map(tuple),
    "holding": st.none() | st.lists(_IDS, max_size=4).map(tuple),
    "limit": st.integers(min_value=0, max_value=40),
    "in_reply_to": st.none() | _IDS,
    "ttl_seconds": st.none() | st.integers(min_value=1, max_value=60),
    "delay_ms": st.none() | _TIMES,
    "due_ms": st.none(),
    "sha": st.none() | st.just("a" * 40),
    "fetched_sha": st.sampled_from(["a" * 40, "b" * 40]),
    "approval_id": st.none() | _IDS,
    "body": st.text(min_size=1, max_size=20),
    "question": st.text(min_size=1, max_size=20),
    "options": st.sampled_from(((), ("x", "y"))),
    "description": st.none() | st.just("because"),
    "note": st.none() | st.just("not now"),
    "commit_ref": st.just("main"),
    "model": st.sampled_from((None, "claude-x")),
    "entry": st.sampled_from(("example.org", "example.org:443", "*.example.org", "192.0.2.7", "[2001:db8::7]:22")),
    "host": st.sampled_from(("example.org", "www.example.org", "192.0.2.7")),
    "port": st.sampled_from((80, 443)),
    "why": st.just("for the docs"),
    "prices": st.sampled_from(({}, {"claude-x": Price(input=3.0, output=15.0)}, {"claude-y": Price(input=1.0)})),
    "name": st.sampled_from(("mara", "ada")),
    "hive": st.sampled_from(("tokyo", "berlin")),
    "peer": st.sampled_from(("berlin", "oslo")),
    "peers": st.just({"berlin": ("mara",)}),
    "number": st.integers(min_value=1, max_value=4),
    "base": st.integers(min_value=1, max_value=4),
    "folder": st.sampled_from(("p", "q")),
    "path": st.sampled_from(("p", "/srv/q")),
}
"""Values by field that match the state."""
_COUNT = st.none() | st.integers(min_value=0, max_value=10**12)
"""The range that the socket accepts; figures are summed."""
_FIGURES = {name: _COUNT for name, hint in typing.get_type_hints(TurnEnded).items() if hint == int | None}
_TOOL_CALLS = st.none() | st.text() | st.dictionaries(st.text(max_size=9), st.integers()).map(json.dumps)
_ACT_REASONS = st.sampled_from(["spawn", "start", "restart", "rebuild", "deploy", "crash", "boot"])


def arbitrary(command: type[Command]) -> st.SearchStrategy[Command]:
    """Any value of the right type."""
    return _built(command, {})


def fitting(command: type[Command]) -> st.SearchStrategy[Command]:
    """With names, ids and words from the state."""
    return _built(command, _FITTING)


def any_fitting() -> st.SearchStrategy[Command]:
    """Any command with fitting values."""
    return st.sampled_from(sorted(RULES, key=lambda rule: rule.__name__)).flatmap(fitting)


def _built(struct: type[msgspec.Struct], known: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    fields = {}
    for name, hint in typing.get_type_hints(struct).items():
        if name not in struct.__struct_fields__:
            continue
        if name == "by":
            fields[name] = _BYS
        elif name == "report":
            fields[name] = _built(TurnEnded, {**known, **_FIGURES, "tool_calls_json": _TOOL_CALLS})
        elif name == "used":
            fields[name] = _built(ModelUsed, known)
        elif struct.__name__ == "RecordStarted" and name == "reason":
            fields[name] = _ACT_REASONS
        elif _takes(hint, name, known):
            fields[name] = known[name]
        else:
            fields[name] = st.from_type(hint)
    return st.builds(struct, **fields)


def _takes(hint: Any, name: str, known: dict[str, st.SearchStrategy[Any]]) -> bool:
    return name in known and hint is not bool
