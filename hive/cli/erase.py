"""Erasing what was said: `hive erase`."""

import asyncio
import re
import sys
from typing import Annotated, Any, Final

import typer

from hive import lock
from hive.cli import screen
from hive.cli.session import Noun, Session
from hive.clock import MS_PER_S, SystemClock, rfc3339
from hive.sockets.client import HostClient, Reply

noun = Noun("Audit")

AGE = re.compile(r"(0|[1-9][0-9]{0,4})([hd])")
HOURS = {"h": 1, "d": 24}
LONG_S: Final = 3_600.0
"""For a reply: a long log is searched, changed and folded again."""
SUBJECTS = ("message", "question", "approval", "agent")


@noun.command("erase", example='hive erase message 12 --why "holds an API key" --yes')
def erase(
    hive: Session,
    subject: Annotated[
        str | None, typer.Argument(metavar="SUBJECT", help="message, question, approval or agent.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Argument(metavar="ID", help="Its number, or the agent's name.", show_default=False)
    ] = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="AGE", help="Every text older than this: 90d, 12h.")
    ] = None,
    why: Annotated[str | None, typer.Option("--why", metavar="TEXT", help="The reason; the log keeps it.")] = None,
    backups: Annotated[
        bool, typer.Option("--backups", help="Also replace hive's backups and the log of an older schema.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
) -> None:
    """Erase texts from the state; the chain still verifies."""
    subject, name = _subject(subject, name, older_than)
    if why is None or not why.strip():
        raise typer.BadParameter("Say why with --why; the log keeps the reason.")
    what = f"everything said before {name}" if subject == "older_than" else f"the text of {subject} {name}"
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("This cannot be undone; say --yes.")
        typer.confirm(f"Erase {what}? This cannot be undone.", abort=True)
    if lock.is_held(hive.paths.lock):
        with HostClient(hive.paths.host_socket, reply_timeout_s=LONG_S) as client:
            reply = client.ask("erase", subject=subject, name=name, why=why, backups=backups)
        way = "The daemon erased"
    else:
        reply, way = _without_daemon(hive, subject, name, why, backups=backups), "Erased"
    _show(hive, reply, f"{way} {what}")


def _subject(subject: str | None, name: str | None, older_than: str | None) -> tuple[str, str]:
    if older_than is not None:
        if subject is not None:
            raise typer.BadParameter("Give either a subject or --older-than.")
        return "older_than", before(older_than)
    if subject not in SUBJECTS or name is None:
        raise typer.BadParameter(
            "Say what to erase: message, question or approval ID, agent NAME, or --older-than AGE."
        )
    return subject, name


def before(age: str) -> str:
    """The time that is so long ago, RFC 3339."""
    found = AGE.fullmatch(age)
    if found is None:
        raise typer.BadParameter(f"{age!r} is not an age; write it as 90d or 12h.")
    hours = int(found[1]) * HOURS[found[2]]
    return rfc3339(SystemClock().now_ms() - hours * 3_600 * MS_PER_S)


def _without_daemon(hive: Session, subject: str, name: str, why: str, *, backups: bool) -> Reply:
    from hive.actors.erasing import erase_offline

    return asyncio.run(erase_offline(hive.paths, subject, name, why, backups=backups))  # type: ignore[arg-type]


def _show(hive: Session, reply: dict[str, Any], done: str) -> None:
    if hive.as_json:
        screen.print_json({key: value for key, value in reply.items() if key not in ("ok", "version")})
        return
    screen.say(f"{done}: {reply['rows']} events changed; event {reply['seq']} says who and why.")
    for row in reply["quotes"]:
        screen.say(f"Event {row['seq']} ({row['type']}) quoted it and is erased, too.")
    if reply["out_of_reach"]:
        screen.say("Not erased, because hive cannot reach or does not own it:")
    for place in reply["out_of_reach"]:
        screen.say(f"  {place}")
