"""Selects the runtime that the operator configured. A new kind needs one line here and one module."""

from typing import Final

from hive.errors import BadRequest, Unavailable
from hive.runtimes.bubblewrap import BubblewrapRuntime
from hive.runtimes.process import ProcessRuntime
from hive.runtimes.protocol import Runtime

AUTO: Final = "auto"


def sandboxed() -> list[Runtime]:
    """The runtimes that isolate agents, strongest first; `auto` takes the first that works."""
    return [BubblewrapRuntime()]


def choose(kind: str = AUTO) -> Runtime:
    """The runtime of that kind, probed; `auto` is the strongest sandboxed one and never `process`.

    Raises:
        BadRequest: the kind is unknown.
        Unavailable: this host cannot run it; the text says what to do.
    """
    known: dict[str, Runtime] = {runtime.kind: runtime for runtime in (*sandboxed(), ProcessRuntime())}
    if kind == AUTO:
        reasons = []
        for runtime in sandboxed():
            why = runtime.unavailable_reason()
            if why is None:
                return runtime
            reasons.append(why)
        raise Unavailable(
            f"No sandboxed runtime works on this host. {' '.join(reasons)} "
            "To run agents without a sandbox, use --runtime process."
        )
    if kind not in known:
        raise BadRequest(f"Unknown runtime {kind!r}; use one of {', '.join((AUTO, *known))}.")
    runtime = known[kind]
    if why := runtime.unavailable_reason():
        raise Unavailable(why)
    return runtime
