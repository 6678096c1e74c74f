"""The rules of moves: one hive owns an agent at each point, and every step can be repeated."""

import msgspec

from hive.clock import TimeMs
from hive.deciders.approvals import cancel_all
from hive.deciders.base import LABEL_MAX_CHARS, Command, Decision, DecisionBuilder, checked_name, living
from hive.deciders.destroy import cancel_questions
from hive.deciders.roster import add_agent, refuse_manager
from hive.errors import AlreadyDone, HiveError, LimitReached, NotFound, Refused
from hive.events import envelopes, notices
from hive.events.agents import ActDecided, Destroyed, ModelSet, Paused
from hive.events.base import ReminderId
from hive.events.messages import MessageDead
from hive.events.moves import MoveArrived, MoveBegun, Moved, MoveFailed, MoveRefused, MoveSent
from hive.events.reminders import ReminderDropped, ReminderSet
from hive.names import SYSTEM, AgentName, is_remote
from hive.projections.hive import Hive

REMINDERS_MAX = 50
"""As many as an agent may have."""


class BeginMove(Command, frozen=True, kw_only=True):
    """Move an agent to a peer."""

    agent: AgentName
    hive: str
    without_mounts: bool = False
    """Go on although it has project folders, which stay on this host."""


class SendMove(Command, frozen=True, kw_only=True):
    """The agent is stopped and its files are uploaded."""

    agent: AgentName
    object: str
    digest: str


class FailMove(Command, frozen=True, kw_only=True):
    """The files cannot be uploaded."""

    agent: AgentName
    error: str


class FinishMove(Command, frozen=True, kw_only=True):
    """The files of an agent that arrived are in place."""

    agent: AgentName


def begin_move(command: BeginMove, hive: Hive, _: TimeMs) -> Decision:
    """Begin to move an agent.

    Raises:
        NotFound: no such agent or peer. Refused: the manager, an act in progress, or project folders.
        AlreadyDone: it moves already.
    """
    row = living(hive, command.agent)
    refuse_manager(row.name, "moved")
    if not hive.swarm.peer(command.hive).trusted:
        raise NotFound(f'hive "{command.hive}" is not a peer of this hive')
    if (move := hive.swarm.moves.get(row.name)) is not None:
        raise AlreadyDone(f"{row.name} is moving to {move.hive}.")
    if row.act is not None:
        raise Refused(f"{row.name} is in the middle of {row.act}; move it when that is done.")
    if not row.spawned:
        raise Refused(f"{row.name} has never started. Start it once, or spawn it in {command.hive}.")
    if not command.without_mounts and (mounts := hive.agents.mounts_of(row.name)):
        folders = ", ".join(one.host_path for one in mounts)
        raise Refused(
            f"Project folders of {row.name} are on this host and do not move: {folders}. Unmount them, or move it"
            f" without them: hive move {row.name} {command.hive} --without-mounts"
        )
    return [MoveBegun(agent=row.name, hive=command.hive, wanted=row.wanted_running)]


def send_move(command: SendMove, hive: Hive, now: TimeMs) -> Decision:
    """Hand the agent over: what is open with it here is settled, its waiting messages follow it."""
    row, move = living(hive, command.agent), hive.swarm.moves.get(command.agent)
    if move is None or move.sent or move.claimed or row.running:
        return []
    decision = DecisionBuilder(hive, now)
    cancel_questions(decision, row.name)
    cancel_all(decision, row.name)
    reminders = hive.reminders.of(row.name)[:REMINDERS_MAX]
    origin, epoch = hive.swarm.lineage(row.name, row.slot)
    for reminder in hive.reminders.of(row.name):
        decision.add(ReminderDropped(id=reminder.id, agent=row.name))
    decision.add(
        MoveSent(
            agent=row.name,
            hive=move.hive,
            object=command.object,
            digest=command.digest,
            wanted=move.wanted,
            paused=row.paused,
            model=row.model,
            reminders=tuple((one.message, one.due_ms) for one in reminders),
            origin=origin,
            epoch=epoch + 1,
        )
    )
    _send_on(decision, row.name, move.hive)
    return decision.events


def _send_on(decision: DecisionBuilder, name: AgentName, hive: str) -> None:
    """Messages that wait for the agent follow it, behind the agent itself."""
    messages = decision.hive.messages
    for message in [*messages.in_flight(name), *messages.waiting(name)]:
        decision.add(MessageDead(id=message.id, to=name, reason=f"{name} moves to {hive}; the message follows it"))
        sender, body = message.sender, message.body
        if is_remote(sender):  # This hive cannot speak for another one.
            sender, body = SYSTEM, f"[Forwarded, from {sender}]\n{body}"
        decision.send(sender, f"{name}@{hive}", body)


def fail_move(command: FailMove, hive: Hive, _: TimeMs) -> Decision:
    """Keep the agent; after it was sent only the target can refuse it."""
    move = hive.swarm.moves.get(command.agent)
    if move is None or move.sent or move.claimed:
        return []
    return [MoveFailed(agent=command.agent, hive=move.hive, error=command.error, wanted=move.wanted)]


def arrive(decision: DecisionBuilder, peer: str, move: envelopes.Move) -> None:
    """Take a peer's agent, or refuse it; the answer leaves in both cases."""
    try:
        _check_arrival(decision.hive, peer, move)
    except HiveError as refusal:
        decision.add(MoveRefused(agent=move.agent[:LABEL_MAX_CHARS], peer=peer, error=str(refusal)))
        return
    kept = msgspec.structs.replace(move, reminders=move.reminders[:REMINDERS_MAX])
    decision.add(MoveArrived(agent=move.agent, peer=peer, **kept.handover()))


def _check_arrival(hive: Hive, peer: str, move: envelopes.Move) -> None:
    name = checked_name(move.agent)
    refuse_manager(name, "moved")
    row, left = hive.agents.all.get(name), hive.swarm.moved.get(name)
    if row is not None and (row.destroyed_ms is None or left is None):
        raise AlreadyDone(f'{hive.swarm.name} has an agent or a tombstone "{name}"')
    held = None if move.origin is None else hive.swarm.held.get(move.origin)
    if held is not None and held.epoch >= move.epoch:
        raise Refused(f"{name} is in {held.hive} already, with a newer epoch than {peer} has")
    if name in hive.swarm.arrivals:
        raise AlreadyDone(f'another "{name}" is arriving in {hive.swarm.name}')
    if len(hive.agents.living()) + len(hive.swarm.arrivals) >= ARRIVALS_MAX:
        raise LimitReached(f"{hive.swarm.name} has {ARRIVALS_MAX} agents; {peer} keeps {name}")


ARRIVALS_MAX = 400
"""Agents of a hive beyond which it takes no more from peers."""


def outcome(decision: DecisionBuilder, peer: str, told: envelopes.MoveOutcome) -> None:
    """The target has the agent, or refused it."""
    hive = decision.hive
    move = hive.swarm.moves.get(told.agent)
    if move is None or move.hive != peer or not move.sent or move.adopted:
        return
    if told.error is not None:
        decision.add(MoveFailed(agent=told.agent, hive=peer, error=told.error[:LABEL_MAX_CHARS], wanted=move.wanted))
        return
    decision.add(Moved(agent=told.agent, source=str(hive.swarm.name), to=peer))
    decision.add(Destroyed(agent=told.agent, purge=False))


def finish_move(command: FinishMove, hive: Hive, now: TimeMs) -> Decision:
    """The agent is on this roster; its actor starts it."""
    arrival = hive.swarm.arrivals.get(command.agent)
    if arrival is None:
        return []
    decision = DecisionBuilder(hive, now)
    decision.add(Moved(agent=arrival.agent, source=arrival.peer, to=str(hive.swarm.name)))
    add_agent(decision, arrival.agent, approval_id=None)
    if not arrival.wanted:
        decision.add(ActDecided(agent=arrival.agent, act="stop"))
    if arrival.model is not None:
        decision.add(ModelSet(agent=arrival.agent, model=arrival.model))
    if arrival.paused:
        decision.add(Paused(agent=arrival.agent))
    for nth, (text, due_ms) in enumerate(arrival.reminders):
        id = ReminderId(hive.ids.next_reminder() + nth)
        decision.add(ReminderSet(id=id, agent=arrival.agent, message=text, due_ms=due_ms))
    decision.tell(arrival.agent, notices.Kicked(reason=f"move from {arrival.peer}"))
    return decision.events
