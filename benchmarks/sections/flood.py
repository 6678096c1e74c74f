"""A flood of one agent's requests over 60 connections: the log, the daemon's memory, and a neighbour's sends."""

import contextlib
from collections.abc import Callable, Iterator

from benchmarks import seeding
from benchmarks.contender import own
from benchmarks.figures import Figure, Round, at_most
from benchmarks.sections import Setting
from hive.settings import SHARES

TITLE = "Flood"
AGENTS = 66
"""The manager, a loud one, and neighbours that stay within their shares."""
CONNECTIONS = 60
SENDS = 1_600
KIB = 1024
MEMORY_MAX_BYTES = 64 * KIB * KIB
"""How much one agent may make the daemon grow."""

FIGURES = [
    Figure("the log's growth against the agent's share of that time, burst included", "grown", "share", at_most(1)),
    Figure("the daemon's growth in memory against 64 MiB", "memory", lambda _: float(MEMORY_MAX_BYTES), at_most(1)),
    Figure("a neighbour's send at p99 against the same alone", "beside p99", "alone p99", at_most(3)),
    Figure("a neighbour's send at the median against the same alone", "beside p50", "alone p50"),
]


@contextlib.contextmanager
def measuring(setting: Setting) -> Iterator[Callable[[], Round]]:
    state = setting.folder / "flood" / "state"
    seeding.roster(state, AGENTS)
    with contextlib.ExitStack() as stack:
        hive = stack.enter_context(own("hive_daemon", state.parent, str(state), str(AGENTS)))
        loud, quiet = (
            stack.enter_context(own("flooder", state.parent / name, str(state), str(AGENTS)))
            for name in ("loud", "quiet")
        )

        def measured() -> Round:
            count = setting.scale.of(SENDS)
            alone = quiet.ask("sends", count=count)
            before, before_bytes = hive.ask("stored"), hive.ask("memory")["bytes"]
            loud.ask("begin", connections=CONNECTIONS)
            beside = quiet.ask("sends", count=count)
            grown_bytes = hive.ask("memory")["bytes"] - before_bytes
            seconds = loud.ask("end")["seconds"]
            allowed = KIB * (SHARES["burst_kib"] + SHARES["kib_per_minute"] * seconds / 60)
            return {
                "grown": hive.ask("stored")["stored"] - before["stored"],
                "share": allowed,
                "memory": max(0, grown_bytes),
                **{f"alone {name}": alone[f"{name}_ms"] for name in ("p50", "p99")},
                **{f"beside {name}": beside[f"{name}_ms"] for name in ("p50", "p99")},
            }

        yield measured
