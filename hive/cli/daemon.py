"""The daemon itself: `hive up`, `hive down`, `hive demo`."""

import os
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from hive import lock
from hive.cli.session import Noun, Session
from hive.errors import Unavailable
from hive.paths import Paths

noun = Noun("Daemon")

ENDS_WITHIN_S = 30.0
"""Between the daemon's last reply and the end of its process: it closes its files."""
END_STEP_S = 0.02


@noun.command("up", example="hive up --runtime bubblewrap")
def up(
    hive: Session,
    runtime: Annotated[
        Literal["auto", "process", "bubblewrap", "nspawn"] | None,
        typer.Option("--runtime", help="What holds the agents; auto, unless hive.toml says so, is the strongest here."),
    ] = None,
    listen: Annotated[str | None, typer.Option("--listen", metavar="HOST:PORT", help="Of the dashboard.")] = None,
    no_dashboard: Annotated[bool, typer.Option("--no-dashboard", help="Sockets only.")] = False,
    model_url: Annotated[
        str | None,
        typer.Option("--model-url", metavar="URL", help="Every agent's ANTHROPIC_BASE_URL, with a dummy key."),
    ] = None,
) -> None:
    """Run the daemon in the foreground."""
    from hive.daemon import run

    raise typer.Exit(run(hive.paths, runtime, listen, not no_dashboard, model_url))


@noun.command("down", example="hive down")
def down(
    hive: Session,
    keep_agents: Annotated[bool, typer.Option("--keep-agents", help="End only the daemon.")] = False,
) -> None:
    """Stop every agent, then the daemon."""
    reply = hive.ask("shutdown", keep_agents=keep_agents)
    _wait_for_end(hive.paths)
    hive.done(reply, "The daemon has ended; its agents go on." if keep_agents else "Agents and daemon have ended.")


def _wait_for_end(paths: Paths) -> None:
    """Who reads the files next must find them closed. Without a right to the state, the reply has to do."""
    if not os.access(paths.lock, os.R_OK):
        return
    deadline = time.monotonic() + ENDS_WITHIN_S
    while lock.is_held(paths.lock):
        if time.monotonic() >= deadline:
            raise Unavailable(f"The daemon still holds {paths.lock} after {ENDS_WITHIN_S:.0f} s; look at its output.")
        time.sleep(END_STEP_S)


@noun.command("demo", example="hive demo --exit")
def demo(
    _hive: Session,
    keep: Annotated[Path | None, typer.Option("--keep", metavar="DIR", help="Leave its state folder there.")] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open the dashboard.")] = False,
    exit_when_done: Annotated[bool, typer.Option("--exit", help="Decide everything by itself, then end.")] = False,
) -> None:
    """Show the main job in a throw-away hive, on a scripted model."""
    from hive.demo import run

    raise typer.Exit(run(keep, not no_browser, exit_when_done))
