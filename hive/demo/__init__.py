"""`hive demo`: the main job in a throw-away hive, told as a story with the log's positions."""

import sys
import threading
import time
import webbrowser
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from hive.demo.scripts import LAST_QUESTION, OPERATORS_WISH
from hive.demo.stage import Stage, running, tool_missing
from hive.demo.story import BEATS, Beat
from hive.errors import HiveError, Unavailable
from hive.events.log import LogReader, verify
from hive.sockets.client import HostClient

STORY_MAX_S = 170.0
"""On a slow machine; on a quick one it takes some twenty seconds."""


def run(keep: Path | None, browser: bool, exit_when_done: bool) -> int:
    """Tell the story; the exit code: 0 when every step was found in the log.

    Without a terminal it ends by itself, as with `exit_when_done`.
    """
    console = Console(highlight=False, soft_wrap=True)
    if (missing := tool_missing()) is not None:
        raise Unavailable(missing)
    stays = sys.stdin.isatty() and not exit_when_done
    with running(keep, dashboard=stays) as stage:
        console.print("[bold]A hive of its own[/], with the real Claude Code CLI; only the paid model is scripted.")
        console.print(f"[dim]{escape(stage.ready)}[/]\n")
        missed = _tell(stage, console)
        if missed:
            for beat in missed:
                console.print(f"[red]Not found in the log:[/] {beat.type}: {escape(beat.text)}")
            return 1
        _prove(stage, console)
        if stays:
            _leave_running(stage, console, browser)
        else:
            _answer_last(stage)
        if keep is not None:
            console.print(f"\nIts state stays in {stage.paths.state}.")
    return 0


def _tell(stage: Stage, console: Console) -> list[Beat]:
    """Follow the log until every beat was found or the time is over; those that were not."""
    left = list(BEATS)
    follower = HostClient(stage.paths.host_socket)
    timer = threading.Timer(STORY_MAX_S, follower.hang_up)
    timer.start()
    began = time.monotonic()
    try:
        with HostClient(stage.paths.host_socket) as operator, follower:
            operator.ask("send", to="manager", body=OPERATORS_WISH)
            for reply in follower.follow("events", **{"from": 1, "follow": True}):
                for event in reply["events"]:
                    _meet(event, left, operator, console, began)
                if not left:
                    break
    except HiveError as error:
        console.print(f"[red]{escape(str(error))}[/]")
    finally:
        timer.cancel()
    return left


def _meet(event: dict[str, Any], left: list[Beat], operator: HostClient, console: Console, began: float) -> None:
    for beat in left:
        if beat.type == event["type"] and beat.when(event["data"]):
            left.remove(beat)
            place = f"[dim]{event['seq']:>4}  {time.monotonic() - began:5.1f} s[/]"
            console.print(f"{place}  [magenta]{beat.type:<18}[/] {escape(beat.told(event['data']))}")
            if beat.then is not None and (shown := beat.then(operator, event["data"])) is not None:
                for line in shown.splitlines():
                    console.print(f"[dim]{'':>33}{escape(line)}[/]")
            return


def _prove(stage: Stage, console: Console) -> None:
    reader = LogReader(stage.paths.state, daemon_runs=True)
    try:
        count, broken = verify(reader.rows(1))
    finally:
        reader.close()
    if broken is not None:
        raise Unavailable(f"Event {broken.seq} {broken.why}.")
    console.print(f"\nEvery step is in the log, and its chain of {count} events holds.")


def _answer_last(stage: Stage) -> None:
    with HostClient(stage.paths.host_socket) as operator:
        for question in operator.ask("questions")["questions"]:
            if question["question"] == LAST_QUESTION:
                operator.ask("answer_question", id=question["id"], answer="Rest")


def _leave_running(stage: Stage, console: Console, browser: bool) -> None:
    folders = f"HIVE_STATE={stage.paths.state} HIVE_RUN={stage.paths.run}"
    with HostClient(stage.paths.host_socket) as operator:
        link = operator.ask("login_link")["url"]
    console.print(
        "\nThe hive goes on, and the manager waits for your answer. On the dashboard (the link is good once):\n"
    )
    console.print(f"  {link}\n")
    if browser and webbrowser.open(link):
        console.print("It should be open in your browser now. ", end="")
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
    console.print("\nCtrl-C ends it and leaves nothing behind.")
    try:
        stage.daemon.wait()
    except KeyboardInterrupt:
        console.print("\nStopping the agents …")
