"""Moving an agent to another hive: `hive move`."""

from typing import Annotated

import typer

from hive.cli.session import AgentArgument, Noun, Session

noun = Noun("Swarm")


@noun.command("move", example="hive move coder berlin")
def move(
    hive: Session,
    name: AgentArgument,
    where: Annotated[str, typer.Argument(metavar="HIVE", help="The hive that it moves to.")],
) -> None:
    """Move an agent to another hive, with files and messages."""
    hive.done(hive.ask("move", name=name, hive=where), f"{name} is in {where} now.")
