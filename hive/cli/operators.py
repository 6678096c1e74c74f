"""The people who may decide on the dashboard: `hive operator add|list|revoke`."""

from typing import Annotated

import typer

from hive.cli import screen
from hive.cli.screen import Column
from hive.cli.session import Noun, Session

noun = Noun("Daemon", group="operator", help="Tokens of the people who may use the dashboard.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The person.")]


@noun.command("add", example="hive operator add mara")
def add(hive: Session, name: NameArgument) -> None:
    """Make a token for a person; it is shown once and never again."""
    reply = hive.ask("operators", action="add", name=name)
    hive.done(reply, f"{reply['token']}\nThis is {name}'s token for the dashboard. Only its hash is kept: note it now.")


@noun.command("list", example="hive operator list")
def show(hive: Session) -> None:
    """List the people who have or had a token."""
    rows = hive.ask("operators", action="list")["operators"]
    if hive.as_json:
        screen.print_json(rows)
    elif not rows:
        screen.say("Nobody has a token yet: hive operator add NAME")
    else:
        cells = [(row["name"], screen.when(row.get("added_at")), screen.when(row.get("revoked_at"))) for row in rows]
        screen.table((Column("Name", whole=True), "Added", "Revoked"), cells)


@noun.command("revoke", example="hive operator revoke mara")
def revoke(hive: Session, name: NameArgument) -> None:
    """Make a person's token worthless."""
    hive.done(hive.ask("operators", action="revoke", name=name), f"{name}'s token opens nothing any more.")


@noun.command("link", example="hive operator link")
def link(hive: Session) -> None:
    """Print a link that signs you in, once and within minutes."""
    reply = hive.ask("login_link")
    hive.done(reply, str(reply["url"]))
