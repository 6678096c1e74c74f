"""Picks the runtime that the operator asked for. A new kind is one line here and one module beside it."""

from typing import Final

from hive.errors import BadRequest, Unavailable
from hive.runtimes.bubblewrap import BubblewrapRuntime
from hive.runtimes.process import ProcessRuntime
from hive.runtimes.protocol import Runtime

AUTO: Final = "auto"


def walled() -> list[Runtime]:
    """The kinds with walls, strongest first; `auto` takes the first that works here."""
    return [BubblewrapRuntime()]


def choose(kind: str = AUTO) -> Runtime:
    """The runtime of that kind, probed; `auto` is the strongest with walls and never `process`.

    Raises:
        BadRequest: there is no such kind.
        Unavailable: this host cannot run it; the text says what to do.
    """
    known: dict[str, Runtime] = {runtime.kind: runtime for runtime in (*walled(), ProcessRuntime())}
    if kind == AUTO:
        reasons = []
        for runtime in walled():
            why = runtime.lacks()
            if why is None:
                return runtime
            reasons.append(why)
        raise Unavailable(
            f"No runtime with walls works on this host. {' '.join(reasons)} "
            "To run agents without any walls, ask for it: --runtime process."
        )
    if kind not in known:
        raise BadRequest(f"There is no runtime {kind!r}; say one of {', '.join((AUTO, *known))}.")
    runtime = known[kind]
    if why := runtime.lacks():
        raise Unavailable(why)
    return runtime
