"""`hive demo --swarm`: two hives on two hosts of one machine, as a story whose steps are checked against both logs."""

import sys
import time
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.markup import escape

from hive.demo import elapsed
from hive.demo.failures import explain, failure_in
from hive.demo.swarm_steps import STEPS, SwarmStep
from hive.demo.temporary_hive import missing_tool, verified_events
from hive.demo.two_hives import NAMES, TwoHives, running
from hive.errors import HiveError, Unavailable
from hive.events.log import LogReader

STEP_MAX_S: Final = 60.0
"""For one step's event. A fast machine needs under a minute for all."""
LOOK_EVERY_S: Final = 0.05


def run(keep: Path | None, exit_when_done: bool) -> int:
    """Run the demo. Returns 0 if the logs have every step.

    Without a terminal it ends by itself, as with `exit_when_done`.
    """
    console = Console(highlight=False, soft_wrap=True)
    if (missing := missing_tool()) is not None:
        raise Unavailable(missing)
    with running(keep) as hives:
        console.print("[bold]Two temporary hives[/], Tokyo and Berlin, in network namespaces of their own.")
        console.print("A real NATS server carries what is between them. Only the paid model is scripted.\n")
        if not _follow(hives, console):
            return 1
        console.print()
        for name in NAMES:
            count = verified_events(hives.paths[name])
            console.print(f"Every step of {name} is in its log, and its chain of {count} events is valid.")
        if sys.stdin.isatty() and not exit_when_done:
            _leave_running(hives, console)
        if keep is not None:
            console.print(f"\nThe state folders are kept: {hives.paths[NAMES[0]].state.parent}.")
    return 0


def _follow(hives: TwoHives, console: Console) -> bool:
    """Take every step; False if one does not happen, and prints why."""
    began, read = time.monotonic(), dict.fromkeys(NAMES, 0)
    for step in STEPS:
        try:
            shown = None if step.act is None else step.act(hives)
            event = _awaited(step, hives, read, console)
        except HiveError as error:
            console.print(f"[red]{escape(str(error))}[/]")
            console.print(f"[red]This step did not happen:[/] {step.hive} {step.event.type}: {escape(step.event.text)}")
            return False
        place = f"[dim]{step.hive:<6} {event['seq']:>4}  {elapsed(time.monotonic() - began):>6}[/]"
        said = step.event.described(event["data"] | {"by": event["by"]})
        console.print(f"{place}  [magenta]{step.event.type:<16}[/] {escape(said)}")
        for line in (shown or "").splitlines():
            console.print(f"[dim]{'':>38}{escape(line)}[/]")
    return True


def _awaited(step: SwarmStep, hives: TwoHives, read: dict[str, int], console: Console) -> dict[str, Any]:
    """The step's event. Raises Unavailable: it does not come, or an agent cannot run."""
    deadline = time.monotonic() + STEP_MAX_S
    while time.monotonic() < deadline:
        for event in _events(hives, step.hive, read[step.hive] + 1):
            is_given_up = step.event.type == "Destroyed"
            if (failure := failure_in(event)) is not None and not is_given_up:
                explain(failure, hives.running[step.hive], console)
                raise Unavailable("The demo stops, because this agent is not started again.")
            if event["type"] == step.event.type and step.event.when(event["data"]):
                read[step.hive] = event["seq"]
                return event
        time.sleep(LOOK_EVERY_S)
    raise Unavailable(f"{step.hive}'s log does not have it after {STEP_MAX_S:.0f} s.")


def _events(hives: TwoHives, name: str, first: int) -> list[dict[str, Any]]:
    reader = LogReader(hives.paths[name].state, daemon_runs=True)
    try:
        return [
            {"seq": row.seq, "type": row.type, "by": row.by, "data": msgspec.json.decode(row.data)}
            for row in reader.rows(first)
        ]
    finally:
        reader.close()


def _leave_running(hives: TwoHives, console: Console) -> None:
    console.print("\nBoth hives keep running. In two other terminals:\n")
    for name in NAMES:
        console.print(f"  export HIVE_STATE={hives.paths[name].state} HIVE_RUN={hives.paths[name].run}")
    console.print()
    for command in (
        "hive status --swarm",
        "hive swarm status",
        "hive send manager@berlin 'How are you?'",
        "hive move coder berlin",
        "hive log --follow",
    ):
        console.print(f"  {command}")
    console.print("\nCtrl-C stops the hives and removes their files.")
    try:
        hives.running[NAMES[0]].daemon.wait()
    except KeyboardInterrupt:
        console.print("\nStopping the agents …")
