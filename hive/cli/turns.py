"""Live turns of an agent and their controls: `hive watch|model|cancel-turn|compact|new-session`."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from hive.cli import screen
from hive.cli.screen import Cell, Styled
from hive.cli.session import AgentArgument, Noun, Session
from hive.clock import readable_field
from hive.errors import NotFound

noun = Noun("One agent")

RESULT_LINES_SHOWN = 6
"""Number of lines shown of a tool result."""
ARGUMENTS_SHOWN = 200
"""Number of characters shown of a tool call's arguments."""
_UNNAMED: Final = frozenset({"at", "type", "kind"})


@noun.command("watch", example="hive watch coder")
def watch(hive: Session, name: AgentArgument) -> None:
    """Watch an agent's turns live, until Ctrl-C."""
    for reply in hive.follow("live", name=name, follow=True):
        for row in reply["lines"]:
            if hive.as_json:
                screen.print_json(row, one_line=True)
            else:
                show(row)


@noun.command("model", example="hive model coder claude-sonnet-4-5")
def model(
    hive: Session,
    name: AgentArgument,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]", help="Model to select; `default` selects the configured one. Omit to show it."
        ),
    ] = None,
) -> None:
    """Show or select an agent's model."""
    if model is None:
        rows = hive.ask("state")["state"]["agents"]
        row = next((row for row in rows if row["name"] == name), None)
        if row is None:
            raise NotFound(f'agent "{name}" is not managed by this hive')
        chosen, active = row.get("model"), row.get("active_model")
        text = f"{name} uses {active or 'a model that is unknown until its first turn'}"
        hive.done(
            {"model": chosen, "active_model": active},
            f"{text}; {f'selected: {chosen}' if chosen else 'no model is selected'}.",
        )
        return
    value = None if model == "default" else model
    hive.done(
        hive.ask("control", name=name, action="model", value=value), f"{name} uses {model} from its next turn on."
    )


@noun.command("cancel-turn", example="hive cancel-turn coder")
def cancel_turn(hive: Session, name: AgentArgument) -> None:
    """Cancel the current turn."""
    hive.done(hive.ask("control", name=name, action="cancel"), f"Asked {name} to cancel its turn.")


@noun.command("compact", example="hive compact coder")
def compact(hive: Session, name: AgentArgument) -> None:
    """Compact an agent's conversation."""
    hive.done(hive.ask("control", name=name, action="compact"), f"Asked {name} to compact its conversation.")


@noun.command("new-session", example="hive new-session coder")
def new_session(hive: Session, name: AgentArgument) -> None:
    """Start a new conversation. The agent's files are kept."""
    hive.done(hive.ask("control", name=name, action="new_session"), f"Asked {name} to start a new conversation.")


def show(row: Mapping[str, Any]) -> None:
    """Print one line of the turn stream."""
    time = Styled(f"{screen.when(row.get('at'))[11:19]} ", "dim")
    kind = str(row.get("kind") or row.get("type") or "")
    match kind:
        case "text":
            screen.say(str(row.get("text", "")))
        case "tool_call":
            screen.line(time, Styled(f"▸ {_tool(row)} ", "cyan"), Styled(_arguments(row), "dim"))
        case "tool_result":
            _show_result(str(row.get("text", "")), bad=bool(row.get("is_error")))
        case "turn_started":
            screen.line(time, Styled("── turn ", "bold"), _rest(row))
        case "turn_ended":
            screen.line(time, Styled("── end ", "bold"), _rest(row))
        case _:
            screen.line(time, Styled(f"{kind} ", "yellow"), _rest(row))


def _show_result(text: str, *, bad: bool) -> None:
    lines = text.splitlines()
    for shown in lines[:RESULT_LINES_SHOWN]:
        screen.line(Styled(f"  │ {shown}", "red" if bad else "dim"))
    if len(lines) > RESULT_LINES_SHOWN:
        screen.line(Styled(f"  │ … {len(lines) - RESULT_LINES_SHOWN} more lines", "dim"))


def _tool(row: Mapping[str, Any]) -> str:
    return str(row.get("name") or row.get("tool") or "tool").removeprefix("mcp__hive__")


def _arguments(row: Mapping[str, Any]) -> str:
    given = row.get("input", row.get("arguments", row.get("text", "")))
    text = given if isinstance(given, str) else screen.json_text(given)
    return text if len(text) <= ARGUMENTS_SHOWN else f"{text[:ARGUMENTS_SHOWN]}…"


def _rest(row: Mapping[str, Any]) -> Cell:
    if row.get("text"):
        return str(row["text"])
    readable = (readable_field(key, value) for key, value in row.items() if key not in _UNNAMED)
    return "  ".join(f"{key}={screen.plain(value)}" for key, value in readable)
