"""Dashboard operators: `hive operator add|list|revoke|link`."""

from typing import Annotated

import typer

from hive.cli import screen
from hive.cli.screen import Column
from hive.cli.session import Noun, Session

noun = Noun("Daemon", group="operator", help="Manage the operators of the dashboard.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the operator.")]


@noun.command("add", example="hive operator add mara")
def add(hive: Session, name: NameArgument) -> None:
    """Create a token for an operator. It is shown only once."""
    reply = hive.ask("operators", action="add", name=name)
    hive.done(
        reply, f"{reply['token']}\nThis is the dashboard token of {name}. Save it now: hive stores only its hash."
    )


@noun.command("list", example="hive operator list")
def show(hive: Session) -> None:
    """List current and revoked operators."""
    rows = hive.ask("operators", action="list")["operators"]
    if hive.as_json:
        screen.print_json(rows)
    elif not rows:
        screen.say("No operators yet. Add one with `hive operator add NAME`.")
    else:
        cells = [(row["name"], screen.when(row.get("added_at")), screen.when(row.get("revoked_at"))) for row in rows]
        screen.table((Column("Name", whole=True), "Added", "Revoked"), cells)


@noun.command("revoke", example="hive operator revoke mara")
def revoke(hive: Session, name: NameArgument) -> None:
    """Revoke the token of an operator."""
    hive.done(hive.ask("operators", action="revoke", name=name), f"Revoked the token of {name}.")


@noun.command("link", example="hive operator link")
def link(hive: Session) -> None:
    """Print a short-lived sign-in link that works once."""
    reply = hive.ask("login_link")
    hive.done(reply, str(reply["url"]))
