"""Rules for the roster: spawn, revive, purge."""

from hive.clock import TimeMs
from hive.deciders.base import Command, Decision, DecisionBuilder, checked_name
from hive.errors import AlreadyDone, LimitReached, NotFound, Refused
from hive.events.agents import AgentAdded, Purged, Revived
from hive.events.base import ApprovalId
from hive.names import MANAGER, AgentName
from hive.projections.hive import Hive

AGENTS_MAX = 500
"""Maximum number of living agents."""


class Spawn(Command, frozen=True, kw_only=True):
    """By the operator without an approval, or by the daemon for the manager."""

    agent: AgentName


class Revive(Command, frozen=True, kw_only=True):
    agent: AgentName


class RecordPurged(Command, frozen=True, kw_only=True):
    """A tombstone's state was deleted."""

    agent: AgentName


def spawn(command: Spawn, hive: Hive, now: TimeMs) -> Decision:
    """Add an agent to the roster; its actor starts it.

    Raises:
        BadRequest: a bad name. AlreadyDone: the name is taken. LimitReached.
    """
    refuse_taken(hive, checked_name(command.agent))
    decision = DecisionBuilder(hive, now)
    add_agent(decision, command.agent, approval_id=None)
    return decision.events


def revive(command: Revive, hive: Hive, _: TimeMs) -> Decision:
    """Turn a tombstone into an agent again, with its state.

    Raises:
        NotFound: no such tombstone. AlreadyDone: it lives. LimitReached.
    """
    row = hive.agents.all.get(command.agent)
    if row is None:
        raise NotFound(f'there is no tombstone "{command.agent}"')
    if row.destroyed_ms is None:
        raise AlreadyDone(f'agent "{command.agent}" was not destroyed')
    if (left := hive.swarm.moved.get(row.name)) is not None:
        raise Refused(f"{row.name} is in {left.hive} now. Run there: hive move {row.name} {hive.swarm.name}")
    _refuse_more(hive)
    return [Revived(agent=command.agent)]


def record_purged(command: RecordPurged, hive: Hive, _: TimeMs) -> Decision:
    """Remove a tombstone from the roster."""
    row = hive.agents.all.get(command.agent)
    if row is None or row.destroyed_ms is None:
        raise NotFound(f'there is no tombstone "{command.agent}"')
    return [Purged(agent=command.agent)]


def add_agent(decision: DecisionBuilder, name: AgentName, approval_id: ApprovalId | None) -> None:
    """Raises LimitReached."""
    _refuse_more(decision.hive)
    decision.add(AgentAdded(agent=name, slot=decision.hive.ids.next_slot(), approval_id=approval_id))


def _refuse_more(hive: Hive) -> None:
    if len(hive.agents.living()) >= AGENTS_MAX:
        raise LimitReached(f"This hive has {AGENTS_MAX} agents; destroy one first.")


def refuse_taken(hive: Hive, name: AgentName) -> None:
    """Raises AlreadyDone when an agent or a tombstone has the name."""
    row = hive.agents.all.get(name)
    if row is not None and row.destroyed_ms is not None:
        raise AlreadyDone(f'agent "{name}" is a tombstone; revive it or purge it first')
    if row is not None:
        raise AlreadyDone(f'agent "{name}" exists already')


def refuse_manager(name: AgentName, what: str) -> None:
    """Raises Refused: a hive always has its manager."""
    if name == MANAGER:
        raise Refused(f"The manager cannot be {what}.")
