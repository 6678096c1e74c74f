"""Turns of a real agent in its container, and cold starts of its CLI; a scripted model reports when requests arrive."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.contenders.serving import Reply, Verb, serve
from hive.harness.agent import cli_path
from hive.names import MANAGER
from hive.paths import Paths
from hive.runtimes.record import Record
from hive.scripted_model import Recorded, ScriptedModel
from hive.sockets.client import HostClient

COLD = "cold"
"""The model's name for a CLI started without hive."""
DEADLINE_S = 120.0
LOOK_S = 0.01
REST_S = 0.2
"""Wait after a turn, until the harness waits for the next message."""
NS_PER_MS = 1_000_000


class AgentTurns:
    def __init__(self, folder: Path, model: ScriptedModel, client: HostClient):
        self._folder = folder
        self._model = model
        self._client = client

    async def warm_up(self) -> Reply:
        """The first turn starts the agent's CLI."""
        return {"ms": self._turn()}

    async def turns(self, count: int) -> Reply:
        """Milliseconds from before each send to the first request at the model."""
        return {"ms": [self._turn() for _ in range(count)]}

    async def cold_start(self) -> Reply:
        """Milliseconds from a cold start of the CLI to its first model request."""
        home = self._folder / "home"
        home.mkdir(exist_ok=True)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "ANTHROPIC_BASE_URL": self._model.url,
            "ANTHROPIC_API_KEY": f"hive-dummy-{COLD}",
        }
        seen = len(self._requests(COLD))
        began = time.time_ns()
        cli = subprocess.Popen(  # noqa: ASYNC220  # Nothing else runs here.
            [cli_path(), "--print", "Hello."],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,  # It would wait three seconds for more to come.
            stdout=subprocess.DEVNULL,
        )
        cli.wait(DEADLINE_S)
        return {"ms": self._requests(COLD)[seen].at_ms - began / NS_PER_MS}

    def _turn(self) -> float:
        seen, ended = len(self._requests(MANAGER)), self._ended()
        began = time.time_ns()
        self._client.ask("send", to=MANAGER, body="Is anything new?")
        _await(lambda: self._ended() > ended, "the end of the turn")
        time.sleep(REST_S)
        return self._requests(MANAGER)[seen].at_ms - began / NS_PER_MS

    def _ended(self) -> int:
        events: list[Any] = self._client.ask("events", types=["TurnEnded"])["events"]
        return len(events)

    def _requests(self, agent: str) -> list[Recorded]:
        return [request for request in self._model.requests if request.agent == agent]


def _await(look: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not look():
        if time.monotonic() > deadline:
            raise SystemExit(f"Never came: {what}.")
        time.sleep(LOOK_S)


def main() -> None:
    folder = Path(sys.argv[1])
    paths = Paths(folder / "state", folder / "run")
    command = [sys.executable, "-m", "hive", "up", "--state", str(paths.state), "--run", str(paths.run)]
    with ScriptedModel() as model, (folder / "daemon.log").open("w") as log:
        command += ["--runtime", "bubblewrap", "--no-dashboard", "--model-url", model.url]
        daemon = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert daemon.stdout is not None
            if not daemon.stdout.readline().startswith("hive ready"):
                raise SystemExit((folder / "daemon.log").read_text())
            with HostClient(paths.host_socket) as client:
                turns = AgentTurns(folder, model, client)
                verbs: dict[str, Verb] = {
                    "warm_up": turns.warm_up,
                    "turns": turns.turns,
                    "cold_start": turns.cold_start,
                }
                asyncio.run(serve(verbs))
                client.ask("shutdown")
            daemon.wait()
        finally:
            daemon.kill()
            Record(paths.record(MANAGER)).kill()


if __name__ == "__main__":
    main()
