"""The roster: `hive status`, `hive agents`, `hive logs`."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from hive.cli import screen
from hive.cli.screen import Cell, Column, Styled
from hive.cli.session import AgentArgument, Noun, Session
from hive.cli.swarm_screen import show_swarm
from hive.hosts import written

noun = Noun("Swarm")

LOG_LINES = 200


@noun.command("status", example="hive status")
def status(
    hive: Session,
    swarm: Annotated[bool, typer.Option("--swarm", help="Every hive of the swarm, with its age.")] = False,
) -> None:
    """Show every agent and the decisions that wait for you."""
    if swarm:
        show_swarm(hive)
        return
    reply = hive.ask("state")
    state = reply["state"]
    rows = state["agents"]
    approvals = [row for row in state["approvals"] if row["status"] == "pending"]
    questions = [row for row in state["questions"] if row.get("target") is None]
    if hive.as_json:
        tombstones = state.get("tombstones", [])
        shown = {"agents": rows, "approvals": approvals, "questions": questions, "tombstones": tombstones}
        screen.print_json(shown | {key: state[key] for key in ("disk_low",) if key in state})
        return
    if reply.get("runtime") == "process":
        screen.line(Styled("The agents are not isolated (--runtime process).", "red"))
    elif reply.get("network_mode") == "host":
        screen.line(Styled('The agents use the host\'s network without walls (network.mode = "host").', "red"))
    elif names := [row["name"] for row in rows if row.get("network") == "host"]:
        said = f'{", ".join(names)}: on the host\'s network without walls until restarted (network.mode was "host").'
        screen.line(Styled(said, "red"))
    if reply.get("waits_for_room"):
        screen.line(Styled("The disk was full at the start: no agent is started. Free disk space.", "red"))
    if low := state.get("disk_low"):
        screen.line(Styled(f"Agents are refused since {screen.when(low['since'])}: {_low_disk(low)}", "red"))
    _show_agents(rows)
    missing = {said for row in rows for said in row.get("limits", {}).get("not_enforced", ())}
    for said in sorted(missing):
        screen.line(Styled(f"Not enforced on this host: {said}", "yellow"))
    for row in state.get("tombstones", ()):
        screen.line(Styled(f"† {row['name']}  destroyed {screen.when(row.get('destroyed_at'))}", "dim"))
    if not approvals and not questions:
        screen.say("\nNo pending decisions.")
        return
    screen.say("")
    screen.heading("Waiting for you")
    for row in approvals:
        about = f" – {row['description']}" if row.get("description") else ""
        where = f" {written(row['host'], row.get('port'))}" if row.get("host") else ""
        screen.line(
            Styled(f"  approval {row['id']}", "yellow"),
            f"  {row['kind']} {row['agent']}{where}{about}  ",
            Styled(f"hive approve {row['id']}", "dim"),
        )
    for row in questions:
        screen.line(
            Styled(f"  question {row['id']}", "yellow"),
            f"  {row['asker']}: {row['question']}  ",
            Styled(f"hive answer {row['id']} TEXT", "dim"),
        )


@noun.command("agents", example="hive agents --json")
def agents(hive: Session) -> None:
    """List the agents with their state."""
    rows = hive.ask("state")["state"]["agents"]
    if hive.as_json:
        screen.print_json(rows)
    else:
        _show_agents(rows)


@noun.command("logs", example="hive logs coder --follow")
def logs(
    hive: Session,
    name: AgentArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print new lines as they appear.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", metavar="N", help="Number of newest lines.")] = LOG_LINES,
) -> None:
    """Print the output of an agent's container."""
    if not follow:
        found = hive.ask("logs", name=name, lines=lines)["lines"]
        if hive.as_json:
            screen.print_json(found)
        else:
            screen.say_each(found)
        return
    for reply in hive.follow("logs", name=name, lines=lines, follow=True):
        for text in reply["lines"]:
            if hive.as_json:
                screen.print_json(text, one_line=True)
            else:
                screen.say(text)


def _low_disk(low: Mapping[str, Any]) -> str:
    return f"the disk had {low['free_mb']} MiB left, and agents must leave {low['floor_mb']} MiB. Free disk space."


def state_of(row: Mapping[str, Any]) -> Styled:
    """An agent's state in one word, by precedence: failed, needs login, paused, stopped, running."""
    transient = row.get("transient")
    if transient:
        return Styled(str(transient.get("kind", "")) if isinstance(transient, dict) else str(transient), "cyan")
    if row.get("failed"):
        return Styled("failed", "red")
    if row.get("needs_login"):
        return Styled("needs login", "magenta")
    if row.get("paused"):
        return Styled("paused", "yellow")
    if not row.get("running"):
        return Styled("stopped", "dim")
    return Styled("running", "green")


def _show_agents(rows: list[dict[str, Any]]) -> None:
    columns = (Column("Agent", whole=True), Column("State", whole=True), "Notes", "Status")
    screen.table(columns, [_agent_cells(row) for row in rows])


def _agent_cells(row: Mapping[str, Any]) -> list[Cell]:
    notes = []
    if row.get("held"):
        notes.append(str(row["held"]))
    if row.get("failure"):
        notes.append(f"{row['failure']}: {row['last_line']}" if row.get("last_line") else str(row["failure"]))
    if row.get("unresponsive"):
        notes.append("unresponsive")
    if row.get("needs_update"):
        notes.append("needs update")
    if row.get("rate_limited_until"):
        notes.append(f"rate limited until {screen.when(row['rate_limited_until'])}")
    if row.get("budget_until"):
        notes.append(f"budget used up until {screen.when(row['budget_until'])}")
    if row.get("throttled_until"):
        notes.append("throttled")
    if disk := row.get("disk"):
        notes.append(f"disk {'full' if disk['full'] else 'nearly full'} ({disk['used_mb']} of {disk['limit_mb']} MiB)")
    if row.get("waiting"):
        notes.append(f"{row['waiting']} waiting")
    if row.get("pending_reminders"):
        notes.append(f"{row['pending_reminders']} reminders")
    if row.get("active_model"):
        notes.append(str(row["active_model"]))
    return [str(row["name"]), state_of(row), ", ".join(notes), str(row.get("status_text", ""))]
