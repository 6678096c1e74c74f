"""Why a demo cannot go on: the agent that does not run, the end of its output, and what `hive doctor` says."""

import subprocess
import sys
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape

from hive.config.escaping import escaped
from hive.demo.temporary_hive import DemoHive
from hive.errors import HiveError
from hive.sockets.client import HostClient

OUTPUT_LINES = 20
DOCTOR_MAX_S = 60.0


class Failure(msgspec.Struct, frozen=True):
    """An agent that the daemon does not start again."""

    agent: str
    text: str


def failure_in(event: dict[str, Any]) -> Failure | None:
    """The failure that an event means: an agent that rests after crashes, or that could not be started."""
    data = event["data"]
    match event["type"]:
        case "Crashed" if data.get("restart_ms") is None:
            said = f": {data['last_line']}" if data.get("last_line") else ""
            return Failure(data["agent"], f"{data['agent']} crashed and is not restarted: {data['reason']}{said}")
        case "ActFailed":
            return Failure(data["agent"], f"{data['agent']}: {data['act']} failed: {data['error']}")
        case _:
            return None


def explain(failure: Failure, demo: DemoHive, console: Console) -> None:
    """Print the failure, the end of the container's output and the output of `hive doctor`."""
    console.print(f"\n[red]{escape(failure.text)}[/]")
    lines = _output(failure.agent, demo)
    console.print(f"\nThe last lines that its container wrote{'' if lines else ': none'}")
    for line in lines:
        console.print(f"  [dim]{escape(escaped(line))}[/]")
    console.print("\n`hive doctor` says:")
    console.print(escape(_doctor(demo)))


def _output(agent: str, demo: DemoHive) -> list[str]:
    try:
        with HostClient(demo.paths.host_socket) as operator:
            lines: list[str] = operator.ask("logs", name=agent, lines=OUTPUT_LINES)["lines"]
            return lines
    except HiveError as error:
        return [str(error)]


def _doctor(demo: DemoHive) -> str:
    folders = ["--state", str(demo.paths.state), "--run", str(demo.paths.run)]
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "hive", "doctor", *folders],
            capture_output=True,
            text=True,
            timeout=DOCTOR_MAX_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stdout + done.stderr
