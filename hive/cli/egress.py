"""The network rules: `hive egress list|allow|deny|revoke`."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from hive.cli import screen
from hive.cli.screen import Cell, Column, Styled
from hive.cli.session import Noun, Session, agent_names
from hive.errors import Unavailable

noun = Noun("Configuration", group="egress", help="Show and change which hosts agents may connect to.")

EntryArgument = Annotated[
    str, typer.Argument(metavar="HOST[:PORT]", help="A host, or *.DOMAIN for every host below a domain.")
]
AgentOption = Annotated[
    str | None,
    typer.Option("--agent", metavar="N", help="Only this agent. Default: every agent.", autocompletion=agent_names),
]
MODES = {
    "none": "no connections",
    "listed": "listed hosts only",
    "ask": "listed hosts; others need your approval",
    "open": "every public address",
    "host": "the host's own network, without walls",
}


@noun.command("list", example="hive egress list --agent coder")
def show(hive: Session, agent: AgentOption = None) -> None:
    """List the network rules."""
    reply = hive.ask("egress", agent=agent)
    if hive.as_json:
        screen.print_json({key: value for key, value in reply.items() if key not in ("ok", "version", "tries")})
        return
    mode, hive_mode = str(reply["mode"]), str(reply.get("hive_mode", reply["mode"]))
    narrowed = f" (agent.toml narrows the mode {hive_mode} of hive.toml)" if mode != hive_mode else ""
    screen.line(f"Mode {mode}: {MODES.get(mode, '')}{narrowed}")
    if reply["allow"]:
        screen.line(f"Allowed in {'agent.toml' if 'hive_mode' in reply else 'hive.toml'}: {', '.join(reply['allow'])}")
    if reply.get("inferred"):
        screen.line(f"Allowed for its MCP servers and the forge: {', '.join(reply['inferred'])}")
    if reply.get("login"):
        screen.line(f"Allowed for its own login to the model: {', '.join(reply['login'])}")
    if not reply["rules"]:
        screen.say("No rules. Add one with `hive egress allow HOST`.")
        return
    columns = (Column("Agent", whole=True), Column("Rule", whole=True), "Host", "Since", "Until", "By")
    screen.table(columns, [_cells(row) for row in reply["rules"]])


@noun.command("allow", example="hive egress allow docs.example:443 --agent coder")
def allow(
    hive: Session,
    entry: Annotated[
        str | None, typer.Argument(metavar="[HOST[:PORT]]", help="A host, or *.DOMAIN for every host below a domain.")
    ] = None,
    agent: AgentOption = None,
    registries: Annotated[
        bool, typer.Option("--registries", help="The registries that pip, npm, cargo, apt and nix use on this host.")
    ] = False,
) -> None:
    """Allow connections to a host."""
    if (entry is None) is not registries:
        raise typer.BadParameter("Name a host, or use --registries.")
    if entry is None:
        _allow_registries(hive, agent)
        return
    hive.done(hive.ask("allow_egress", entry=entry, agent=agent), f"Allowed {entry} for {_whom(agent)}.")


@noun.command("deny", example="hive egress deny '*.ads.example'")
def deny(hive: Session, entry: EntryArgument, agent: AgentOption = None) -> None:
    """Deny connections to a host until the rule is revoked."""
    hive.done(hive.ask("deny_egress", entry=entry, agent=agent), f"Denied {entry} for {_whom(agent)}.")


@noun.command("revoke", example="hive egress revoke docs.example:443 --agent coder")
def revoke(hive: Session, entry: EntryArgument, agent: AgentOption = None) -> None:
    """Remove a rule."""
    reply = hive.ask("revoke_egress", entry=entry, agent=agent)
    hive.done(reply, f"Revoked the rule for {entry} of {_whom(agent)}.")


def _allow_registries(hive: Session, agent: str | None) -> None:
    from hive.cli.registries import registries

    found = registries()
    for one in found:
        for entry in one.entries:
            hive.ask("allow_egress", entry=entry, agent=agent)
        if not hive.as_json:
            screen.say(f"{one.tool}: {', '.join(one.entries) or 'not installed, or uses no registry'}")
    if hive.as_json:
        screen.print_json({one.tool: one.entries for one in found})
    if not any(one.entries for one in found):
        raise Unavailable("None of the tools names a registry. Allow hosts by name with `hive egress allow HOST`.")


def _whom(agent: str | None) -> str:
    return agent or "every agent"


def _cells(row: Mapping[str, Any]) -> list[Cell]:
    rule = Styled("allow", "green") if row["allowed"] else Styled("deny", "red")
    until = screen.when(row.get("until"))
    return [row.get("agent") or "all", rule, str(row["entry"]), screen.when(row["since"]), until, str(row["by"])]
