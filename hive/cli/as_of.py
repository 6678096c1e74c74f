"""Prints the state as of an event: agents and open items. For `hive audit replay`."""

from hive.cli import screen
from hive.cli.agents import state_of
from hive.cli.screen import Cell, Column
from hive.hosts import written
from hive.projections.agents import Agent
from hive.projections.hive import Hive

MESSAGES_SHOWN = 50


def show(state: Hive, agent: str | None = None) -> None:
    """Print the whole state, or the state of one agent."""
    rows = [row for row in state.agents.living() if agent in (None, row.name)]
    if rows:
        columns = (Column("Agent", whole=True), Column("State", whole=True), Column("Waiting", right=True), "Status")
        screen.table(columns, [_agent_cells(state, row) for row in rows])
    for approval in state.approvals.pending():
        if agent in (None, approval.agent, approval.requester):
            where = f" {written(approval.host, approval.port)}" if approval.host else ""
            screen.line(f"approval {approval.id} pending: {approval.kind} {approval.agent}{where}")
    for question in state.questions.pending():
        if agent in (None, question.asker, question.target):
            asked = f"question {question.id} pending: {question.asker} asks {question.target or 'operator'}: "
            screen.line(asked, question.question)
    for rule in state.egress.listed(agent):
        what = "may connect" if rule.allowed else "may not connect"
        until = f" until {screen.when(rule.until_ms)}" if rule.until_ms else ""
        screen.line(f"rule: {rule.agent or 'every agent'} {what} to {rule.entry}{until}")
    for tombstone in state.agents.tombstones():
        if agent in (None, tombstone.name):
            screen.line(f"tombstone {tombstone.name}, destroyed {screen.when(tombstone.destroyed_ms)}")
    if agent is not None:
        _show_own(state, agent)


def _show_own(state: Hive, agent: str) -> None:
    """Print the agent's messages, reminders and folders."""
    for message in (*state.messages.in_flight(agent), *state.messages.waiting(agent, MESSAGES_SHOWN)):
        where = "in its turn" if message.state == "in_flight" else "waiting"
        screen.line(f"message {message.id} {where}: {message.sender} says: ", message.body)
    for reminder in state.reminders.pending:
        if reminder.agent == agent:
            screen.line(f"reminder {reminder.id} due {screen.when(reminder.due_ms)}: ", reminder.message)
    for mount in state.agents.mounts:
        if mount.agent == agent:
            how = "read-only" if mount.read_only else "writable"
            screen.line(f"folder /work/{mount.folder}, {how}: ", mount.host_path)


def _agent_cells(state: Hive, row: Agent) -> list[Cell]:
    held = state.transient.held.get(row.name)
    shown = {
        "transient": held and held.kind,
        "failed": row.failure,
        "needs_login": row.needs_login,
        "paused": row.paused,
        "running": row.running,
    }
    return [
        row.name,
        state_of(shown),
        str(state.messages.waiting_count(row.name)),
        row.failure or row.status_text or "",
    ]
