"""The cost of a rebuild for concurrent appends."""

import contextlib
from collections.abc import Callable, Iterator

from benchmarks import seeding
from benchmarks.contender import own
from benchmarks.figures import Figure, Round, at_least
from benchmarks.sections import Setting

TITLE = "Appends beside a rebuild"
AGENTS = 64
EVENTS = 400_000
"""Length of the log to rebuild; long enough to append meanwhile."""
PRODUCERS = 64

FIGURES = [Figure("64 producers beside a rebuild against the same alone", "beside", "alone", at_least(0.8))]


@contextlib.contextmanager
def measuring(setting: Setting) -> Iterator[Callable[[], Round]]:
    state = setting.folder / "beside" / "state"
    seeding.messages(state, setting.scale.of(EVENTS), AGENTS)
    with own("hive_daemon", state.parent, str(state), str(AGENTS)) as hive:
        hive.ask("append", producers=PRODUCERS, events=12_800)
        hive.ask("drain")

        def measured() -> Round:
            alone = hive.ask("append", producers=PRODUCERS, events=setting.scale.of(25_600, PRODUCERS))["rate"]
            hive.ask("drain")
            beside = hive.ask("beside_rebuild", producers=PRODUCERS, events=6_400)["rate"]
            hive.ask("drain")
            return {"alone": alone, "beside": beside}

        yield measured
