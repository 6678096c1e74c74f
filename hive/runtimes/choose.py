"""Selects the runtime that the operator configured. A new kind needs one line here and one module."""

from pathlib import Path
from typing import Final

from hive.errors import BadRequest, Unavailable
from hive.runtimes.bubblewrap import BubblewrapRuntime
from hive.runtimes.nixos import NixosRuntime
from hive.runtimes.nspawn import NspawnRuntime
from hive.runtimes.process import ProcessRuntime
from hive.runtimes.protocol import Runtime

AUTO: Final = "auto"


def sandboxed(image: Path | None = None) -> list[Runtime]:
    """The runtimes that isolate agents, strongest first."""
    return [NixosRuntime(), NspawnRuntime(image), BubblewrapRuntime()]


def candidates(image: Path | None = None) -> list[Runtime]:
    """What `auto` tries, in this order: nspawn only where hive.toml names an image, and never nixos.

    Under nixos each configuration is a whole system to build, so the operator asks for it by name.
    """
    asked = {NixosRuntime.kind} if image else {NixosRuntime.kind, NspawnRuntime.kind}
    return [runtime for runtime in sandboxed(image) if runtime.kind not in asked]


def choose(kind: str = AUTO, image: Path | None = None) -> Runtime:
    """The runtime of that kind, probed; `auto` is the strongest sandboxed one and never `process`.

    Raises:
        BadRequest: the kind is unknown.
        Unavailable: this host cannot run it; the text says what to do.
    """
    known: dict[str, Runtime] = {runtime.kind: runtime for runtime in (*sandboxed(image), ProcessRuntime())}
    if kind == AUTO:
        reasons = []
        for runtime in candidates(image):
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
