"""The wake-up time of a parked recv, through the agents' real sockets."""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from statistics import median

from benchmarks import seeding
from benchmarks.contender import own
from benchmarks.figures import Figure, Round, at_most
from benchmarks.sections import Setting

TITLE = "Waking parked recvs"
PARKED = 200
AGENTS = PARKED + 1
"""The manager writes to all others."""
TIMES = 5
"""Repetitions per round, interleaved; the median counts."""
NO_SHARES = (
    "[limits]\nevents_per_minute = 10000000\nburst_events = 10000000\nkib_per_minute = 10000000\nburst_kib = 10000000\n"
)
"""A message to 200 agents every few seconds is more than one agent's default share."""
ONES = 60
"""Sends to one parked recv, and bare round trips."""

FIGURES = [
    Figure("send to wake, against a bare round trip and one commit", "one", "bare one", at_most(3)),
    Figure("one commit wakes 200 recvs: until the last has its message", "woken", lambda _: 1.0, at_most(3), " ms"),
    Figure("the same against 200 bare asyncio futures, woken and nothing more", "woken", "futures"),
    Figure("the same against 200 threads woken by an event, and nothing more", "woken", "threads"),
    Figure("send to the 200th reply against send to one", "all", "one"),
]


@contextlib.contextmanager
def measuring(setting: Setting) -> Iterator[Callable[[], Round]]:
    state = setting.folder / "waking" / "state"
    seeding.roster(state, AGENTS)
    (state / "hive.toml").write_text(NO_SHARES)
    with contextlib.ExitStack() as stack:
        hive = stack.enter_context(own("hive_daemon", state.parent, str(state), str(AGENTS)))
        recvs = stack.enter_context(own("recvs", state.parent / "recvs", str(state), str(AGENTS)))
        bare = stack.enter_context(own("bare", state.parent / "bare", str(state.parent / "bare")))

        def measured() -> Round:
            count = setting.scale.of(ONES)
            took: dict[str, list[float]] = defaultdict(list)
            for _ in range(TIMES):
                took["bare one"].append(bare.ask("round_trips", count=count)["p50_ms"])
                took["one"].append(recvs.ask("one", count=count)["p50_ms"])
                recvs.ask("park", parked=PARKED)
                hive.ask("watch_wakes", parked=PARKED)
                took["all"].append(recvs.ask("everyone", parked=PARKED)["ms"])
                took["woken"].append(hive.ask("woken")["ms"])
                took["futures"].append(bare.ask("wake_futures", count=PARKED)["ms"])
                took["threads"].append(bare.ask("wake_threads", count=PARKED)["ms"])
            return {name: median(times) for name, times in took.items()}

        yield measured
