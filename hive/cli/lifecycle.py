"""What an operator does to agents: spawn, start, stop, kill, restart, rebuild, pause, destroy, revive."""

import sys
from typing import Annotated

import typer

from hive.cli.session import AgentArgument, Noun, Session, agent_names

noun = Noun("Lifecycle")

NewNameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Lower-case letters, digits and dashes.")]
NamesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="The agents.", autocompletion=agent_names)
]
AllOption = Annotated[bool, typer.Option("--all", help="Every agent.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]


@noun.command("spawn", example="hive spawn coder")
def spawn(hive: Session, name: NewNameArgument) -> None:
    """Make a new agent and start it."""
    hive.done(hive.ask("spawn", name=name), f"{name} is spawned.")


@noun.command("request-spawn", example='hive request-spawn coder --description "for the parser"')
def request_spawn(
    hive: Session,
    name: NewNameArgument,
    description: Annotated[
        str | None, typer.Option("--description", "-d", metavar="TEXT", help="What it is for.")
    ] = None,
) -> None:
    """Queue the approval for a new agent, as the manager would."""
    reply = hive.ask("request_spawn", name=name, description=description)
    id = reply.get("id")
    hive.done(reply, f"Approval {id} waits: hive approve {id}" if id is not None else f"The approval for {name} waits.")


@noun.command("start", example="hive start coder")
def start(hive: Session, names: NamesArgument = None, everyone: AllOption = False) -> None:
    """Start stopped agents."""
    reply = hive.ask("start", scope=_scope(names, everyone))
    hive.done(reply, f"Started: {_named(names)}.")


@noun.command("stop", example="hive stop coder")
def stop(hive: Session, names: NamesArgument = None, everyone: AllOption = False) -> None:
    """Stop agents gracefully; they stay stopped until started."""
    reply = hive.ask("stop", scope=_scope(names, everyone), graceful=True)
    hive.done(reply, f"Stopped: {_named(names)}.")


@noun.command("kill", example="hive kill coder")
def kill(hive: Session, name: AgentArgument) -> None:
    """End an agent's container at once."""
    hive.done(hive.ask("kill", name=name), f"{name} is killed.")


@noun.command("restart", example="hive restart coder")
def restart(hive: Session, name: AgentArgument) -> None:
    """Stop an agent and start it again."""
    hive.done(hive.ask("restart", name=name), f"{name} is restarted.")


@noun.command("rebuild", example="hive rebuild coder")
def rebuild(hive: Session, name: AgentArgument) -> None:
    """Build an agent's wanted configuration and restart it on that."""
    hive.done(hive.ask("rebuild", name=name), f"{name} is rebuilt.")


@noun.command("update-all", example="hive update-all")
def update_all(hive: Session) -> None:
    """Rebuild every agent that needs an update."""
    hive.done(hive.ask("update_all"), "Every agent is up to date.")


@noun.command("pause", example="hive pause coder")
def pause(hive: Session, name: AgentArgument) -> None:
    """Let an agent take no more messages; they wait."""
    hive.done(hive.ask("set_paused", name=name, paused=True), f"{name} is paused: hive resume {name}")


@noun.command("resume", example="hive resume coder")
def resume(hive: Session, name: AgentArgument) -> None:
    """Let a paused agent take messages again."""
    hive.done(hive.ask("set_paused", name=name, paused=False), f"{name} takes messages again.")


@noun.command("destroy", example="hive destroy coder --yes")
def destroy(
    hive: Session,
    name: AgentArgument,
    purge: Annotated[bool, typer.Option("--purge", help="Wipe its state too; nothing is left to revive.")] = False,
    yes: YesOption = False,
) -> None:
    """Remove an agent; its state stays unless purged."""
    _confirm(f"Destroy {name}{' and wipe its state' if purge else ''}?", yes)
    left = "nothing of it is left" if purge else f"its state is kept: hive revive {name}"
    hive.done(hive.ask("destroy", name=name, purge=purge), f"{name} is destroyed; {left}")


@noun.command("purge", example="hive purge coder --yes")
def purge_tombstone(hive: Session, name: AgentArgument, yes: YesOption = False) -> None:
    """Wipe the state that a destroyed agent left."""
    _confirm(f"Wipe what {name} left?", yes)
    hive.done(hive.ask("purge", name=name), f"Nothing of {name} is left.")


@noun.command("revive", example="hive revive coder")
def revive(hive: Session, name: AgentArgument) -> None:
    """Make a destroyed agent live again with the state it left."""
    hive.done(hive.ask("revive", name=name), f"{name} lives again.")


def _scope(names: list[str] | None, everyone: bool) -> dict[str, list[str]]:
    if everyone == bool(names):
        raise typer.BadParameter("Name agents, or say --all.")
    return {"agent_names": names} if names else {}


def _named(names: list[str] | None) -> str:
    return ", ".join(names) if names else "every agent"


def _confirm(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("This cannot be undone; say --yes.")
    if not typer.confirm(question):
        raise typer.Exit(1)
