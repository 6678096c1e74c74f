"""`hive demo`: runs the main workflow in a temporary hive and prints each step with its position in the log."""

import sys
import threading
import time
import webbrowser
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from hive.clock import MS_PER_S, duration_text
from hive.demo.failures import explain, failure_in
from hive.demo.scripts import FIRST_REQUEST, LAST_QUESTION
from hive.demo.steps import STEPS, DemoStep
from hive.demo.temporary_hive import DemoHive, missing_tool, running, verified_events
from hive.errors import HiveError, Unavailable
from hive.sockets.client import HostClient

DEMO_MAX_S = 170.0
"""Time limit. A fast machine needs about ten seconds."""
TENTHS_BELOW_S = 60


def run(keep: Path | None, browser: bool, exit_when_done: bool) -> int:
    """Run the demo. Returns 0 if the log has every step.

    Without a terminal it ends by itself, as with `exit_when_done`.
    """
    console = Console(highlight=False, soft_wrap=True)
    if (missing := missing_tool()) is not None:
        raise Unavailable(missing)
    stays = sys.stdin.isatty() and not exit_when_done
    with running(keep, dashboard=stays) as demo:
        console.print("[bold]A temporary hive[/] with the real Claude Code CLI. Only the paid model is scripted.")
        console.print(f"[dim]{escape(demo.ready)}[/]\n")
        if not follow_steps(demo, console):
            return 1
        count = verified_events(demo.paths)
        console.print(f"\nEvery step is in the log, and its chain of {count} events is valid.")
        if stays:
            _leave_running(demo, console, browser)
        else:
            _answer_last(demo)
        if keep is not None:
            console.print(f"\nThe state folder is kept: {demo.paths.state}.")
    return 0


def follow_steps(demo: DemoHive, console: Console) -> bool:
    """Follow the log until it has every step; False if the time is over or an agent cannot run.

    After a failure, prints why and the first missing step.
    """
    left = list(STEPS)
    follower = HostClient(demo.paths.host_socket)
    timer = threading.Timer(DEMO_MAX_S, follower.hang_up)
    timer.start()
    began = time.monotonic()
    try:
        with HostClient(demo.paths.host_socket) as operator, follower:
            operator.ask("send", to="manager", body=FIRST_REQUEST)
            for reply in follower.follow("events", **{"from": 1, "follow": True}):
                for event in reply["events"]:
                    _match(event, left, operator, console, began)
                    if (failure := failure_in(event)) is not None:
                        explain(failure, demo, console)
                        raise Unavailable("The demo stops, because this agent is not started again.")
                if not left:
                    return True
    except HiveError as error:
        console.print(f"[red]{escape(str(error))}[/]")
    finally:
        timer.cancel()
    found = len(STEPS) - len(left)
    console.print(
        f"[red]{found} of {len(STEPS)} steps are in the log.[/] The first missing one is {left[0].type}: "
        f"{escape(left[0].text)}"
    )
    return False


def elapsed(seconds: float) -> str:
    """Time since the start, as printed beside a step."""
    return f"{seconds:.1f}s" if seconds < TENTHS_BELOW_S else duration_text(seconds * MS_PER_S)


def _match(event: dict[str, Any], left: list[DemoStep], operator: HostClient, console: Console, began: float) -> None:
    for step in left:
        if step.type == event["type"] and step.when(event["data"]):
            left.remove(step)
            place = f"[dim]{event['seq']:>4}  {elapsed(time.monotonic() - began):>6}[/]"
            console.print(f"{place}  [magenta]{step.type:<18}[/] {escape(step.described(event['data']))}")
            if step.then is not None and (shown := step.then(operator, event["data"])) is not None:
                for line in shown.splitlines():
                    console.print(f"[dim]{'':>33}{escape(line)}[/]")
            return


def _answer_last(demo: DemoHive) -> None:
    with HostClient(demo.paths.host_socket) as operator:
        for question in operator.ask("questions")["questions"]:
            if question["question"] == LAST_QUESTION:
                operator.ask("answer_question", id=question["id"], answer="Rest")


def _leave_running(demo: DemoHive, console: Console, browser: bool) -> None:
    folders = f"HIVE_STATE={demo.paths.state} HIVE_RUN={demo.paths.run}"
    with HostClient(demo.paths.host_socket) as operator:
        link = operator.ask("login_link")["url"]
    console.print(
        "\nThe hive keeps running, and the manager waits for your answer. On the dashboard (the link works once):\n"
    )
    console.print(f"  {link}\n")
    if browser and webbrowser.open(link):
        console.print("Your browser should show it now. ", end="")
    console.print("Or in another terminal:\n")
    console.print(f"  export {folders}")
    for command in (
        "hive status",
        "hive questions",
        "hive answer 3 'Paint another'",
        "hive send coder 'How are you?'",
        "hive watch manager",
        "hive log --follow",
        "hive audit verify",
    ):
        console.print(f"  {command}")
    console.print("\nCtrl-C stops the hive and removes its files.")
    try:
        demo.daemon.wait()
    except KeyboardInterrupt:
        console.print("\nStopping the agents …")
