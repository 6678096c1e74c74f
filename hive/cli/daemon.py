"""The daemon: `hive up`, `hive down`, `hive demo`."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from hive import lock, settings
from hive.cli.session import Noun, Session
from hive.errors import BadRequest, Unavailable
from hive.paths import Paths

noun = Noun("Daemon")


def address(value: str | None) -> str | None:
    """Callback of `--listen`: a malformed value is a usage error."""
    return value if value is None else _well_formed(value, lambda: settings.host_and_port(value, "--listen"))


def url(value: str | None) -> str | None:
    """Callback of an option with a web address: a malformed value is a usage error."""
    return value if value is None else _well_formed(value, lambda: settings.check_url(value, "--model-url"))


def _well_formed(value: str, check: Callable[[], object]) -> str:
    try:
        check()
    except BadRequest as error:
        raise typer.BadParameter(str(error)) from error
    return value


ENDS_WITHIN_S = 30.0
"""Time that the daemon has to close its files and exit after its last reply."""
END_STEP_S = 0.02


@noun.command("up", example="hive up --runtime bubblewrap")
def up(
    hive: Session,
    runtime: Annotated[
        settings.RuntimeKind | None,
        typer.Option("--runtime", help="Container runtime. Default: hive.toml, else the strongest available."),
    ] = None,
    listen: Annotated[
        str | None, typer.Option("--listen", metavar="HOST:PORT", callback=address, help="Address of the dashboard.")
    ] = None,
    no_dashboard: Annotated[bool, typer.Option("--no-dashboard", help="Do not start the dashboard.")] = False,
    model_url: Annotated[
        str | None,
        typer.Option(
            "--model-url", metavar="URL", callback=url, help="ANTHROPIC_BASE_URL of every agent, with a dummy key."
        ),
    ] = None,
) -> None:
    """Run the daemon in the foreground."""
    from hive.daemon import run

    raise typer.Exit(run(hive.paths, runtime, listen, not no_dashboard, model_url))


@noun.command("down", example="hive down")
def down(
    hive: Session,
    keep_agents: Annotated[bool, typer.Option("--keep-agents", help="Stop only the daemon.")] = False,
) -> None:
    """Stop every agent, then the daemon."""
    reply = hive.ask("shutdown", keep_agents=keep_agents)
    _wait_for_end(hive.paths)
    hive.done(
        reply,
        "The daemon has stopped; the agents keep running."
        if keep_agents
        else "The agents and the daemon have stopped.",
    )


def _wait_for_end(paths: Paths) -> None:
    """Wait until the daemon has closed its files. Without access to the state folder, trust its reply."""
    if not os.access(paths.lock, os.R_OK):
        return
    deadline = time.monotonic() + ENDS_WITHIN_S
    while lock.is_held(paths.lock):
        if time.monotonic() >= deadline:
            raise Unavailable(f"The daemon still holds {paths.lock} after {ENDS_WITHIN_S:.0f}s. Check its output.")
        time.sleep(END_STEP_S)


@noun.command("demo", example="hive demo --exit")
def demo(
    _hive: Session,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="DIR", help="Keep the state folder in this directory.")
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open the dashboard.")] = False,
    exit_when_done: Annotated[
        bool, typer.Option("--exit", help="Decide as the operator automatically, then exit.")
    ] = False,
    swarm: Annotated[
        bool, typer.Option("--swarm", help="Two hives on two hosts: one is lost. Needs network namespaces.")
    ] = False,
) -> None:
    """Run a demo in a temporary hive with a scripted model."""
    if swarm:
        from hive.demo.swarm import run as run_swarm

        raise typer.Exit(run_swarm(keep, exit_when_done))
    from hive.demo import run

    raise typer.Exit(run(keep, not no_browser, exit_when_done))
