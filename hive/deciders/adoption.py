"""The rules of taking over a lost hive's agents, and of giving them up when that hive is back."""

from hive.clock import TimeMs
from hive.deciders.approvals import cancel_all
from hive.deciders.base import Command, Decision, DecisionBuilder, checked_name
from hive.deciders.destroy import cancel_questions
from hive.deciders.moves import REMINDERS_MAX
from hive.deciders.roster import add_agent, refuse_manager
from hive.errors import AlreadyDone, NotFound, Refused
from hive.events import envelopes, notices
from hive.events.agents import Destroyed, ModelSet, Paused
from hive.events.base import ReminderId
from hive.events.messages import MessageDead
from hive.events.moves import Adopted, Moved
from hive.events.reminders import ReminderDropped, ReminderSet
from hive.names import SYSTEM, AgentName, address, is_remote
from hive.projections.hive import Hive


class Adopt(Command, frozen=True, kw_only=True):
    """Take over one agent, as its hive's replica shows it. Its files are in place."""

    agent: AgentName
    source: str
    until: str
    paused: bool = False
    model: str | None = None
    reminders: tuple[tuple[str, TimeMs], ...] = ()
    messages: tuple[tuple[str, str], ...] = ()
    """Sender and body of what waits for it there, oldest first."""


class EndAdopted(Command, frozen=True, kw_only=True):
    """The container of an agent that another hive has adopted is gone."""

    agent: AgentName


def adopt(command: Adopt, hive: Hive, now: TimeMs) -> Decision:
    """Put the agent on this roster and tell its hive, for when it is back.

    Raises:
        NotFound: no such peer. AlreadyDone: the name is taken here. LimitReached.
    """
    source, name = command.source, checked_name(command.agent)
    refuse_manager(name, "adopted")
    if not hive.swarm.peer(source).trusted:
        raise NotFound(f'hive "{source}" is not a peer of this hive')
    row = hive.agents.all.get(name)
    if name in hive.swarm.arrivals or (row is not None and (row.destroyed_ms is None or name not in hive.swarm.moved)):
        raise AlreadyDone(f'agent "{name}" or its tombstone is in this hive already')
    here = str(hive.swarm.name)
    decision = DecisionBuilder(hive, now)
    adopted = Adopted(agent=name, source=source, to=here, operator=command.by.name, until=command.until)
    decision.add(adopted)
    add_agent(decision, name, approval_id=None)
    if command.model is not None:
        decision.add(ModelSet(agent=name, model=command.model))
    if command.paused:
        decision.add(Paused(agent=name))
    for nth, (text, due_ms) in enumerate(command.reminders[:REMINDERS_MAX]):
        id = ReminderId(hive.ids.next_reminder() + nth)
        decision.add(ReminderSet(id=id, agent=name, message=text, due_ms=due_ms))
    for sender, body in command.messages:
        who, where = address(sender)
        if where is None:
            decision.send(f"{who}@{source}", name, body)
        elif where == here:
            decision.send(who, name, body)
        else:
            decision.send(f"{SYSTEM}@{source}", name, f"[Forwarded, from {sender}]\n{body}")
    decision.tell(name, notices.Kicked(reason=f"adoption from {source}"))
    return decision.events


def give_up(decision: DecisionBuilder, peer: str, told: envelopes.Adopted) -> None:
    """This hive was lost and is back: the agent belongs to the peer, if its operator may decide here.

    Raises:
        Refused: that operator may not.
    """
    hive, name = decision.hive, told.agent
    row, move = hive.agents.living_one(name), hive.swarm.moves.get(name)
    if told.operator not in hive.swarm.peer(peer).operators:
        raise Refused(f"{told.operator[:40]!r} of {peer} may not adopt agents of {hive.swarm.name}")
    if row is None or (move is not None and move.sent):
        return
    cancel_questions(decision, name)
    cancel_all(decision, name)
    for reminder in hive.reminders.of(name):
        decision.add(ReminderDropped(id=reminder.id, agent=name))
    here = str(hive.swarm.name)
    decision.add(Adopted(agent=name, source=here, to=peer, operator=told.operator, until=told.until))
    for message in [*hive.messages.in_flight(name), *hive.messages.waiting(name)]:
        decision.add(MessageDead(id=message.id, to=name, reason=f"{peer} has adopted {name}"))
        if message.at > told.until and not is_remote(message.sender):
            decision.send(message.sender, f"{name}@{peer}", message.body)


def end_adopted(command: EndAdopted, hive: Hive, _: TimeMs) -> Decision:
    """The agent is a tombstone here."""
    move = hive.swarm.moves.get(command.agent)
    if move is None or not move.adopted or hive.agents.living_one(command.agent) is None:
        return []
    moved = Moved(agent=command.agent, source=str(hive.swarm.name), to=move.hive)
    return [moved, Destroyed(agent=command.agent, purge=False)]
