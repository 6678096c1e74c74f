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
    without_mounts: Annotated[
        bool, typer.Option("--without-mounts", help="Leave its project folders behind, which are on this host.")
    ] = False,
) -> None:
    """Move an agent to another hive, with files and messages."""
    reply = hive.ask("move", name=name, hive=where, without_mounts=without_mounts or None)
    hive.done(reply, f"{name} is in {where} now.")
