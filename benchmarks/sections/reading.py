"""Replay, rebuild and verification of the log, against only scanning and decoding SQLite's rows."""

import contextlib
from collections.abc import Callable, Iterator

from benchmarks import seeding
from benchmarks.contender import own
from benchmarks.figures import Figure, Round, at_least
from benchmarks.sections import Setting

TITLE = "Replay, rebuild, verification"
EVENTS = 100_000
"""Number of events in each log."""

FIGURES = [
    Figure(
        "replay into all projections against bare scan and decode", "messages replay", "messages scan", at_least(0.6)
    ),
    Figure("replay into all projections against eventsourcing", "messages replay", "eventsourcing", at_least(8)),
    Figure(
        "full rebuild into SQLite against bare scan and decode", "messages rebuild", "messages scan", at_least(0.45)
    ),
    Figure("chain verification against bare scan and decode", "messages verify", "messages scan", at_least(0.8)),
    Figure("whole turns: replay against bare scan and decode", "turns replay", "turns scan"),
    Figure("whole turns: replay against eventsourcing", "turns replay", "eventsourcing"),
    Figure("whole turns: rebuild against bare scan and decode", "turns rebuild", "turns scan"),
    Figure("whole turns: chain verification against bare scan and decode", "turns verify", "turns scan"),
]


@contextlib.contextmanager
def measuring(setting: Setting) -> Iterator[Callable[[], Round]]:
    folder = setting.folder / "reading"
    states = {"messages": folder / "messages" / "state", "turns": folder / "turns" / "state"}
    seeding.messages(states["messages"], setting.scale.of(EVENTS))
    seeding.turns(states["turns"], setting.scale.of(EVENTS))
    with contextlib.ExitStack() as stack:
        hive = stack.enter_context(own("hive_files", folder))
        bares = {}
        for name, state in states.items():
            bares[name] = stack.enter_context(own("bare", folder / name / "bare", str(folder / name / "bare")))
            bares[name].ask("copy_log", state=str(state))
        peer = setting.peer("eventsourcing")
        if peer is not None:
            stack.enter_context(peer)
            peer.ask("append", events=setting.scale.of(20_000, 64), per_commit=64)

        def measured() -> Round:
            found: Round = {}
            for name, state in states.items():
                found[f"{name} scan"] = bares[name].ask("scan")["rate"]
                for what in ("replay", "rebuild", "verify"):
                    found[f"{name} {what}"] = hive.ask(what, state=str(state))["rate"]
            if peer is not None:
                found["eventsourcing"] = peer.ask("replay")["rate"]
            return found

        yield measured
