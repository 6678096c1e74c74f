"""hive's overhead per turn of a real agent, against a cold start of the CLI."""

import contextlib
from collections.abc import Callable, Iterator
from statistics import median

from benchmarks.contender import own
from benchmarks.figures import Figure, Round, at_most
from benchmarks.sections import Setting

TITLE = "Turns"
TURNS = 16
"""Turns of one agent with a running CLI, after each cold start."""
COLD_STARTS = 3

FIGURES = [
    Figure(
        "message sent to first request at the model, against one cold start of the CLI", "warm", "cold", at_most(0.1)
    )
]


@contextlib.contextmanager
def measuring(setting: Setting) -> Iterator[Callable[[], Round]]:
    folder = setting.folder / "turns"
    with own("agent_turns", folder, str(folder)) as agent:
        agent.ask("warm_up")

        def measured() -> Round:
            warm, cold = list[float](), list[float]()
            for _ in range(COLD_STARTS):
                cold.append(agent.ask("cold_start")["ms"])
                warm += agent.ask("turns", count=setting.scale.of(TURNS))["ms"]
            return {"warm": median(warm), "cold": median(cold)}

        yield measured
