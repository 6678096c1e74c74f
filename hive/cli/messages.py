"""The operator's messages: `hive send`, `hive inbox`."""

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from hive.cli import screen
from hive.cli.screen import Styled
from hive.cli.session import Noun, Session, agent_names, recipients
from hive.names import OPERATOR

noun = Noun("Messages")

INBOX_SHOWN = 50


@noun.command("send", example='hive send manager "How is the parser coming on?"')
def send(
    hive: Session,
    to: Annotated[
        str, typer.Argument(metavar="TO", help='An agent, or "*" for all agents.', autocompletion=recipients)
    ],
    body: Annotated[str, typer.Argument(metavar="BODY", help="The message; - reads standard input.")],
    reply_to: Annotated[
        int | None, typer.Option("--reply-to", metavar="ID", help="ID of the message to reply to.")
    ] = None,
) -> None:
    """Send a message to one agent or to all agents."""
    text = sys.stdin.read() if body == "-" else body
    reply = hive.ask("send", to=to, body=text, in_reply_to=reply_to)
    ids = reply.get("ids") or [reply.get("id")]
    hive.done(
        reply, f"Sent as message {', '.join(map(str, ids))}." if ids != [None] else "No agent received the message."
    )


@noun.command("inbox", example="hive inbox --follow")
def inbox(
    hive: Session,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print new messages as they arrive.")] = False,
    agent: Annotated[
        str | None,
        typer.Option("--agent", metavar="NAME", help="Show the inbox of this agent.", autocompletion=agent_names),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", help="Number of newest messages.")] = INBOX_SHOWN,
) -> None:
    """Show the messages to you, oldest first."""
    if follow:
        _follow(hive, agent or OPERATOR, limit)
        return
    rows = hive.ask("messages", limit=limit, agent=agent)["messages"]
    if hive.as_json:
        screen.print_json(rows)
    elif not rows:
        screen.say("No messages.")
    for row in [] if hive.as_json else rows:
        _show(row)


def _follow(hive: Session, reader: str, limit: int) -> None:
    """Read the position, then the history, then events from that position: no message is missed or repeated."""
    head = hive.ask("state")["seq"]
    past = hive.ask("messages", limit=limit, agent=None if reader == OPERATOR else reader)["messages"]
    shown = {row["id"] for row in past}
    for row in past:
        _print(hive, row)
    for reply in hive.follow("events", **{"from": head + 1}, types=["MessageSent"], follow=True):
        for event in reply["events"]:
            data = event["data"]
            if data["to"] == reader and data["id"] not in shown:
                _print(hive, {"at": event["at"], **data})


def _print(hive: Session, row: Mapping[str, Any]) -> None:
    if hive.as_json:
        screen.print_json(row, one_line=True)
    else:
        _show(row)


def _show(row: Mapping[str, Any]) -> None:
    answers = f" in reply to {row['in_reply_to']}" if row.get("in_reply_to") else ""
    to = "" if row.get("to") in (None, OPERATOR) else f" to {row['to']}"
    screen.line(
        Styled(f"{row['id']}", "bold"),
        Styled(f"  {screen.when(row['at'])}  ", "dim"),
        Styled(f"{row['from']}{to}", "cyan"),
        Styled(answers, "dim"),
    )
    screen.say_each(f"    {line}" for line in str(row["body"]).splitlines() or [""])
