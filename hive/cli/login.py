"""`hive login`: runs the login flow of an agent's CLI; prints its URL and asks for the code."""

import sys
import threading
from collections.abc import Mapping
from typing import Any, Final

import typer

from hive.cli import screen
from hive.cli.session import AgentArgument, Noun, Session
from hive.cli.turns import show
from hive.errors import HiveError, Unavailable
from hive.sockets.client import HostClient

noun = Noun("One agent")

URL_WITHIN_S: Final = 60.0
"""Time that the agent's CLI has to print the URL."""
RESULT_WITHIN_S: Final = 60.0


@noun.command("login", example="hive login coder")
def login(hive: Session, name: AgentArgument) -> None:
    """Log an agent in: open the URL, then paste the code."""
    if not sys.stdin.isatty() and hive.as_json:
        raise typer.BadParameter("A login asks for a code; do not use --json.")
    flow = _Flow(hive, name)
    hive.ask("control", name=name, action="login_start")
    if not flow.has_url.wait(URL_WITHIN_S):
        raise Unavailable(f"{name} printed no URL within {URL_WITHIN_S:.0f}s. Check `hive watch {name}`.")
    code = typer.prompt("Code").strip()
    hive.ask("control", name=name, action="login_code", value=code)
    if not flow.has_result.wait(RESULT_WITHIN_S):
        raise Unavailable(f"{name} did not report a result within {RESULT_WITHIN_S:.0f}s. Check `hive status`.")
    if not flow.worked:
        raise Unavailable(f"The login of {name} failed. Retry with `hive login {name}`.")


class _Flow:
    """Follows the agent's live stream on its own connection and thread, and prints its lines."""

    def __init__(self, hive: Session, name: str):
        self.has_url = threading.Event()
        self.has_result = threading.Event()
        self.worked = False
        client = HostClient(hive.paths.host_socket)
        self._replies = client.follow("live", name=name, follow=True)
        next(self._replies)  # Skip the history, which may contain earlier logins.
        threading.Thread(target=self._watch, name="login", daemon=True).start()

    def _watch(self) -> None:
        try:
            for reply in self._replies:
                for row in reply["lines"]:
                    self._see(row)
        except HiveError as error:
            screen.complain(f"hive: {error}")

    def _see(self, row: Mapping[str, Any]) -> None:
        match row.get("kind") or row.get("type"):
            case "login_url":
                screen.say(f"Open {row.get('url') or row.get('text')}")
                self.has_url.set()
            case "login_result":
                self.worked = bool(row.get("logged_in", row.get("ok")))
                screen.say(str(row.get("text") or ("Logged in." if self.worked else "Not logged in.")))
                self.has_result.set()
            case _:
                show(row)
