"""Lifecycle commands: spawn, start, stop, kill, restart, rebuild, pause, destroy, revive."""

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
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]


@noun.command("spawn", example="hive spawn coder")
def spawn(hive: Session, name: NewNameArgument) -> None:
    """Create an agent and start it."""
    hive.done(hive.ask("spawn", name=name), f"Spawned {name}.")


@noun.command("request-spawn", example='hive request-spawn coder --description "for the parser"')
def request_spawn(
    hive: Session,
    name: NewNameArgument,
    description: Annotated[
        str | None, typer.Option("--description", "-d", metavar="TEXT", help="Purpose of the agent.")
    ] = None,
) -> None:
    """Request an approval for a new agent, as the manager does."""
    reply = hive.ask("request_spawn", name=name, description=description)
    id = reply.get("id")
    hive.done(
        reply,
        f"Requested approval {id}. Approve it with `hive approve {id}`."
        if id is not None
        else f"Requested an approval for {name}.",
    )


@noun.command("start", example="hive start coder")
def start(
    hive: Session,
    names: NamesArgument = None,
    everyone: AllOption = False,
    without_swarm: Annotated[
        bool,
        typer.Option("--without-swarm", help="Although the swarm cannot say whether another hive has adopted them."),
    ] = False,
) -> None:
    """Start stopped agents."""
    reply = hive.ask("start", scope=_scope(names, everyone), without_swarm=without_swarm or None)
    hive.done(reply, f"Started: {_named(names)}.")


@noun.command("stop", example="hive stop coder")
def stop(hive: Session, names: NamesArgument = None, everyone: AllOption = False) -> None:
    """Stop agents gracefully. They stay stopped until you start them."""
    reply = hive.ask("stop", scope=_scope(names, everyone), graceful=True)
    hive.done(reply, f"Stopped: {_named(names)}.")


@noun.command("kill", example="hive kill coder")
def kill(hive: Session, name: AgentArgument) -> None:
    """Kill an agent's container immediately."""
    hive.done(hive.ask("kill", name=name), f"Killed {name}.")


@noun.command("restart", example="hive restart coder")
def restart(hive: Session, name: AgentArgument) -> None:
    """Stop an agent and start it again."""
    hive.done(hive.ask("restart", name=name), f"Restarted {name}.")


@noun.command("rebuild", example="hive rebuild coder")
def rebuild(hive: Session, name: AgentArgument) -> None:
    """Build an agent's configuration and restart the agent with it."""
    hive.done(hive.ask("rebuild", name=name), f"Rebuilt {name}.")


@noun.command("update-all", example="hive update-all")
def update_all(hive: Session) -> None:
    """Rebuild every agent that needs an update."""
    hive.done(hive.ask("update_all"), "Every agent is up to date.")


@noun.command("pause", example="hive pause coder")
def pause(hive: Session, name: AgentArgument) -> None:
    """Pause an agent: its messages wait in the inbox."""
    hive.done(hive.ask("set_paused", name=name, paused=True), f"Paused {name}. Resume it with `hive resume {name}`.")


@noun.command("resume", example="hive resume coder")
def resume(hive: Session, name: AgentArgument) -> None:
    """Resume a paused agent."""
    hive.done(hive.ask("set_paused", name=name, paused=False), f"Resumed {name}.")


@noun.command("destroy", example="hive destroy coder --yes")
def destroy(
    hive: Session,
    name: AgentArgument,
    purge: Annotated[bool, typer.Option("--purge", help="Delete its state too; it cannot be revived.")] = False,
    yes: YesOption = False,
) -> None:
    """Remove an agent. Its state is kept unless you purge it."""
    _confirm(f"Destroy {name}{' and delete its state' if purge else ''}?", yes)
    left = "Its state is deleted." if purge else f"Its state is kept; `hive revive {name}` restores it."
    hive.done(hive.ask("destroy", name=name, purge=purge), f"Destroyed {name}. {left}")


@noun.command("purge", example="hive purge coder --yes")
def purge_tombstone(hive: Session, name: AgentArgument, yes: YesOption = False) -> None:
    """Delete the state of a destroyed agent."""
    _confirm(f"Delete the state of {name}?", yes)
    hive.done(hive.ask("purge", name=name), f"Deleted the state of {name}.")


@noun.command("revive", example="hive revive coder")
def revive(hive: Session, name: AgentArgument) -> None:
    """Restore a destroyed agent with its kept state."""
    hive.done(hive.ask("revive", name=name), f"Revived {name}.")


def _scope(names: list[str] | None, everyone: bool) -> dict[str, list[str]]:
    if everyone == bool(names):
        raise typer.BadParameter("Name one or more agents, or use --all.")
    return {"agent_names": names} if names else {}


def _named(names: list[str] | None) -> str:
    return ", ".join(names) if names else "every agent"


def _confirm(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("This cannot be undone. Confirm with --yes.")
    if not typer.confirm(question):
        raise typer.Exit(1)
