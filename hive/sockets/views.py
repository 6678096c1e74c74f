"""Converts projection rows to their wire format: wire names, RFC 3339 times, no keys without a value."""

from typing import Any

import msgspec

from hive.broker.wire import Try
from hive.clock import DurationMs, TimeMs, rfc3339
from hive.deciders.throttling import EVENT_EVERY_MS
from hive.events.base import MessageId
from hive.names import MANAGER, AgentName
from hive.projections.agents import Agent
from hive.projections.approvals import Approval
from hive.projections.egress import Rule
from hive.projections.hive import Hive
from hive.projections.messages import InboxMessage, Recent
from hive.projections.questions import Question
from hive.projections.turns import HOUR_MS
from hive.projections.usage import cost, use_since

SHA_SHOWN = 12
"""Hex digits of a commit shown in a roster row."""
DAY_HOURS = 24
THROTTLED_SHOWN_MS: DurationMs = 2 * EVENT_EVERY_MS
"""The badge is shown so long after the newest `Throttled`: it does not flicker while the flood goes on."""


def _at(time: TimeMs | None) -> str | None:
    return None if time is None else rfc3339(time)


def _known(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value is not None}


def message(row: InboxMessage) -> dict[str, Any]:
    """A delivered message."""
    shown = _message(row.id, row.at, row.sender, row.body, row.in_reply_to)
    if row.redelivered:
        shown["redelivered"] = True
    return shown


def recent(row: Recent) -> dict[str, Any]:
    """A message by recipient, delivered or not."""
    return _message(row.id, row.at, row.sender, row.body, row.in_reply_to)


def _message(id: MessageId, at: str, sender: str, body: str, in_reply_to: MessageId | None) -> dict[str, Any]:
    return _known({"id": id, "at": at, "from": sender, "body": body, "in_reply_to": in_reply_to})


def question(row: Question) -> dict[str, Any]:
    """A question. `target` is always present; it is null for the operator."""
    shown = _known(
        {
            "id": row.id,
            "asker": row.asker,
            "question": row.question,
            "options": row.options,
            "multi": row.multi,
            "asked_at": rfc3339(row.asked_ms),
            "deadline_at": _at(row.deadline_ms),
            "answer": row.answer,
            "answerer": row.answerer,
            "resolved_at": _at(row.resolved_ms),
            "resolved_by": row.resolved_by,
        }
    )
    return {**shown, "target": row.target}


def approval(row: Approval) -> dict[str, Any]:
    """An approval: the keys of protocol version 1, and who requested and resolved it."""
    return _known(
        {
            "id": row.id,
            "agent": row.agent,
            "kind": row.kind,
            "commit_ref": row.commit_ref,
            "fetched_sha": row.fetched_sha,
            "requested_at": rfc3339(row.requested_ms),
            "requester": row.requester,
            "status": row.status,
            "resolved_at": _at(row.resolved_ms),
            "resolved_by": row.resolved_by,
            "note": row.note,
            "description": row.description,
            "host": row.host,
            "port": row.port,
        }
    )


def rule(row: Rule) -> dict[str, Any]:
    """A network rule. `agent` is absent for a rule of every agent, `port` for a rule of every port."""
    return _known(
        {
            "agent": row.agent or None,
            "entry": str(row.entry),
            "host": row.host,
            "port": row.entry.port,
            "allowed": row.allowed,
            "since": rfc3339(row.since_ms),
            "until": _at(row.until_ms),
            "by": row.by,
            "approval": row.approval_id,
        }
    )


def tried(one: Try) -> dict[str, Any]:
    """Connections of an agent to one destination with one outcome."""
    return {"host": one.host, "port": one.port, "outcome": one.outcome, "count": one.count, "at": rfc3339(one.last_ms)}


def agent_status(row: Agent, hive: Hive, base_url: str | None) -> dict[str, Any]:
    """A row of `agent_statuses`."""
    return _known(
        {
            "name": row.name,
            "running": row.running,
            "failed": row.failure is not None,
            "needs_update": row.needs_update,
            "needs_login": row.needs_login,
            "pending_reminders": len(hive.reminders.of(row.name)),
            "paused": row.paused,
            "parent": None if row.name == MANAGER else MANAGER,
            "deployed_sha": None if row.revision is None else row.revision[:SHA_SHOWN],
            "active_model": row.active_model,
            "status_text": row.status_text if row.running else None,
            "status_set_at": _at(row.status_set_ms) if row.running else None,
            "url": None if base_url is None else f"{base_url}/agent/{row.name}/",
        }
    )


def agent(row: Agent, hive: Hive, base_url: str | None, now: TimeMs) -> dict[str, Any]:
    """Everything that a screen shows about an agent."""
    held = hive.transient.held.get(row.name)
    turn = hive.turns.current.get(row.name)
    more = _known(
        {
            "state": state_of(row),
            "transient": None if held is None else {"kind": held.kind, "since": rfc3339(held.since_ms)},
            "turn": None if turn is None else {"since": rfc3339(turn.since_ms), "wake_from": turn.wake_from},
            "held": _why_away(row, hive),
            "failure": row.failure,
            "last_line": None if row.failure is None else row.last_line,
            "restart_at": _at(row.restart_ms),
            "started_at": _at(row.started_ms) if row.running else None,
            "network": row.network if row.running else None,
            "rate_limited_until": _at(row.rate_limited_until_ms),
            "budget_until": _at(row.budget_until_ms),
            "throttled_until": throttled_until(row, now),
            "limits": None if row.limits is None else msgspec.to_builtins(row.limits),
            "disk": _disk(row),
            "model": row.model,
            "added_at": rfc3339(row.added_ms),
        }
    )
    return {
        **agent_status(row, hive, base_url),
        **more,
        "unresponsive": row.unresponsive,
        "wanted": row.wanted_running,
        "waiting": hive.messages.waiting_count(row.name),
        "in_flight": len(hive.messages.in_flight(row.name)),
        "open_threads": len(hive.questions.threads_of(row.name)),
        **used_today(hive, row.name, now),
        "mounts": mounts(hive, row.name),
    }


def _why_away(row: Agent, hive: Hive) -> str | None:
    """Why an agent that is on its way to another hive does not run here."""
    move = hive.swarm.moves.get(row.name)
    if move is None:
        return None
    if move.claimed and not move.adopted:
        return f"{move.hive} has a newer epoch of it and takes it over"
    return f"it goes to {move.hive}"


def swarm_agent(row: Agent, hive: Hive) -> dict[str, Any]:
    """What other hives see of an agent."""
    return _known(
        {
            "name": row.name,
            "state": state_of(row),
            "running": row.running,
            "status_text": row.status_text if row.running else None,
            "failure": row.failure,
            "active_model": row.active_model,
            "waiting": hive.messages.waiting_count(row.name),
        }
    )


def throttled_until(row: Agent, now: TimeMs) -> str | None:
    """Until when the badge is shown; None once it is over."""
    until = None if row.throttled_ms is None else row.throttled_ms + THROTTLED_SHOWN_MS
    return _at(until) if until is not None and until > now else None


def _disk(row: Agent) -> dict[str, Any] | None:
    """The agent's disk while it is nearly full or full."""
    if not row.disk_warned:
        return None
    limit = row.limits.disk_mb if row.limits is not None else None
    return _known({"full": row.disk_full, "used_mb": row.disk_used_mb, "limit_mb": limit})


def _low_disk(hive: Hive) -> dict[str, Any] | None:
    """Since when agents are refused for lack of room on the disk."""
    row = hive.disk.is_low
    return None if row is None else {"since": rfc3339(row.since_ms), "free_mb": row.free_mb, "floor_mb": row.floor_mb}


def state_of(row: Agent) -> str:
    """The state shown on a screen, by priority: failed, needs login, paused, stopped, running."""
    if row.failure is not None:
        return "failed"
    if row.needs_login:
        return "needs login"
    if row.paused:
        return "paused"
    return "running" if row.running else "stopped"


def mounts(hive: Hive, name: AgentName) -> list[dict[str, Any]]:
    """An agent's project folders."""
    rows = hive.agents.mounts_of(name)
    return [{"folder": row.folder, "path": row.host_path, "read_only": row.read_only} for row in rows]


def used_today(hive: Hive, name: AgentName, now: TimeMs) -> dict[str, Any]:
    """Input and output tokens of the last day, what the harness reported if that differs, and the cost if known."""
    use = use_since(hive.turns.hours.rows, hive.usage, name, now - DAY_HOURS * HOUR_MS)
    reported = use.reported.without_cache if use.differs else None
    dollars = cost(hive.usage.prices, use.counted)
    tokens = use.tokens.without_cache
    return _known({"tokens_today": tokens, "reported_tokens_today": reported, "cost_today": dollars})


def tombstone(row: Agent) -> dict[str, Any]:
    return {"name": row.name, "destroyed_at": _at(row.destroyed_ms)}


def operator_message(row: Recent) -> dict[str, Any]:
    """A message with its recipient."""
    return {**recent(row), "to": row.to}


def snapshot(hive: Hive, base_url: str | None, now: TimeMs) -> dict[str, Any]:
    """The state as one object, for the dashboard and `hive status`."""
    return {
        "agents": [agent(row, hive, base_url, now) for row in hive.agents.living()],
        "tombstones": [tombstone(row) for row in hive.agents.tombstones()],
        **_known({"disk_low": _low_disk(hive)}),
        "approvals": [approval(row) for row in [*hive.approvals.over(), *hive.approvals.under_way()]]
        + [approval(row) for row in hive.approvals.pending()],
        "questions": [question(row) for row in hive.questions.pending()],
        "answered": [question(row) for row in hive.questions.resolved()[-SNAPSHOT_HISTORY:]],
        "messages": [operator_message(row) for row in hive.messages.newest("operator", SNAPSHOT_HISTORY)],
        "turns": [
            {"agent": row.agent, "at": rfc3339(row.ended_ms), **msgspec.to_builtins(row.report)}
            for agent_row in hive.agents.living()
            for row in hive.turns.of(agent_row.name)[-SNAPSHOT_TURNS:]
        ],
        "operators": [
            _known({"name": row.name, "added_at": rfc3339(row.added_ms), "revoked_at": _at(row.revoked_ms)})
            for row in hive.operators.all
        ],
    }


SNAPSHOT_HISTORY = 50
"""Rows of each history list in a snapshot."""
SNAPSHOT_TURNS = 10
"""Turns of each agent in a snapshot."""
