"""The rules of taking over a lost hive's agents, and of giving them up when that hive is back.

An agent has an epoch in the log of each hive that it was in; an adoption raises it. Who reads a newer epoch than its
own does not run the agent. The lost hive decides in the end: it gives the agent up, or refuses the adoption.
"""

from hive.clock import TimeMs
from hive.deciders.approvals import cancel_all
from hive.deciders.base import LABEL_MAX_CHARS, Command, Decision, DecisionBuilder, checked_name
from hive.deciders.destroy import cancel_questions
from hive.deciders.moves import REMINDERS_MAX
from hive.deciders.roster import add_agent, refuse_manager
from hive.errors import AlreadyDone, NotFound, Refused
from hive.events import AnyEvent, envelopes, notices
from hive.events.agents import ActDecided, Destroyed, ModelSet, Paused
from hive.events.base import ReminderId
from hive.events.messages import MessageDead
from hive.events.moves import (
    Adopted,
    AdoptionBegun,
    AdoptionEnded,
    AdoptionRefused,
    Claim,
    ClaimSeen,
    Moved,
    MoveFailed,
)
from hive.events.reminders import ReminderDropped, ReminderSet
from hive.names import MANAGER, SYSTEM, AgentName, address, is_hive_name, is_remote
from hive.projections.hive import Hive


class BeginAdoption(Command, frozen=True, kw_only=True):
    """Take over agents of a hive that is lost, as its replica shows them."""

    source: str
    until: str
    heard: int
    claims: tuple[Claim, ...]


class EndAdoption(Command, frozen=True, kw_only=True):
    """Every claim is taken over or given up."""

    source: str
    error: str | None = None


class Adopt(Command, frozen=True, kw_only=True):
    """Take over one claimed agent. Its files are in place."""

    agent: AgentName
    source: str
    wanted: bool = True
    """Whether it ran there."""
    paused: bool = False
    model: str | None = None
    reminders: tuple[tuple[str, TimeMs], ...] = ()
    messages: tuple[tuple[str, str], ...] = ()
    """Sender and body of what waits for it there, oldest first."""


class SeeClaims(Command, frozen=True, kw_only=True):
    """What the screen of a peer says of agents' epochs: by origin the newest one, and the hive that holds it."""

    peer: str
    claims: dict[str, tuple[int, str]]


class EndAdopted(Command, frozen=True, kw_only=True):
    """The container of an agent that another hive has adopted is gone."""

    agent: AgentName


def begin_adoption(command: BeginAdoption, hive: Hive, _: TimeMs) -> Decision:
    """Claim the agents, before anything of them is here.

    Raises:
        NotFound: no such peer, or it has no agent to adopt. AlreadyDone: the adoption is under way.
    """
    source = command.source
    if not hive.swarm.peer(source).trusted:
        raise NotFound(f'hive "{source}" is not a peer of this hive')
    if source in hive.swarm.adoptions:
        raise AlreadyDone(f"The agents of {source} are being adopted.")
    if not command.claims:
        raise NotFound(f"{source} has no agent that this hive can adopt.")
    begun = AdoptionBegun(
        source=source,
        operator=command.by.name,
        until=command.until,
        heard=command.heard,
        claims=command.claims,
    )
    return [begun]


def why_not_adoptable(hive: Hive, source: str, claim: Claim) -> str | None:
    """Why an agent of a lost hive stays there; None: it can be adopted."""
    row, held = hive.agents.all.get(claim.agent), hive.swarm.held.get(claim.origin)
    if held is not None and held.epoch >= claim.epoch:
        return f"{held.hive} has it with a newer epoch"
    if claim.agent in hive.swarm.arrivals:
        return f'another "{claim.agent}" is arriving here'
    if row is not None and (row.destroyed_ms is None or claim.agent not in hive.swarm.moved):
        return f'this hive has an agent or a tombstone "{claim.agent}"'
    return None


def adopt(command: Adopt, hive: Hive, now: TimeMs) -> Decision:
    """Put the agent on this roster and tell its hive, for when it is back. A no-op if it is here.

    Raises:
        NotFound: it is not claimed. AlreadyDone: the name is taken here. LimitReached.
    """
    source, name = command.source, checked_name(command.agent)
    refuse_manager(name, "adopted")
    under_way = hive.swarm.adoptions.get(source)
    claim = None if under_way is None else next((one for one in under_way.claims if one.agent == name), None)
    if under_way is None or claim is None:
        raise NotFound(f"{name} of {source} is not claimed by this hive")
    if hive.swarm.has(claim):
        return []
    if (why := why_not_adoptable(hive, source, claim)) is not None:
        raise AlreadyDone(f"{name} stays in {source}: {why}")
    decision = DecisionBuilder(hive, now)
    adopted = Adopted(
        agent=name,
        source=source,
        to=str(hive.swarm.name),
        operator=under_way.operator,
        until=under_way.until,
        origin=claim.origin,
        epoch=claim.epoch,
    )
    decision.add(adopted)
    add_agent(decision, name, approval_id=None)
    if not command.wanted:
        decision.add(ActDecided(agent=name, act="stop"))
    _furnish(decision, command)
    return decision.events


def _furnish(decision: DecisionBuilder, command: Adopt) -> None:
    """What the agent had and what waits for it."""
    hive, source, name = decision.hive, command.source, command.agent
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
        elif where == hive.swarm.name:
            decision.send(who, name, body)
        else:
            decision.send(f"{SYSTEM}@{source}", name, f"[Forwarded, from {sender}]\n{body}")
    decision.tell(name, notices.Kicked(reason=f"adoption from {source}"))


def end_adoption(command: EndAdoption, hive: Hive, _: TimeMs) -> Decision:
    """Record the end; a no-op if it is recorded. What was not taken over goes back to its hive."""
    under_way = hive.swarm.adoptions.get(command.source)
    if under_way is None:
        return []
    given_up = tuple(one.agent for one in under_way.claims if not hive.swarm.has(one))
    return [AdoptionEnded(source=command.source, given_up=given_up, error=command.error)]


def see_claims(command: SeeClaims, hive: Hive, _: TimeMs) -> Decision:
    """Stop every agent of which a peer shows a newer epoch. Only a peer whose operators may decide here is believed."""
    peer = hive.swarm.peer(command.peer)
    if not peer.trusted or not peer.operators or hive.swarm.name is None:
        return []
    seen: list[AnyEvent] = []
    for row in hive.agents.living():
        origin, epoch = hive.swarm.lineage(row.name, row.slot)
        newest, holder = command.claims.get(origin, (0, ""))
        move = hive.swarm.moves.get(row.name)
        if move is not None and move.claimed and not move.adopted and holder == hive.swarm.name:
            error = f"{command.peer} does not adopt it"
            seen.append(MoveFailed(agent=row.name, hive=move.hive, error=error, wanted=move.wanted))
        if row.name == MANAGER or newest <= epoch or holder == hive.swarm.name:
            continue
        if move is None or not (move.sent or move.claimed):
            wanted = row.wanted_running if move is None else move.wanted
            seen.append(ClaimSeen(agent=row.name, hive=command.peer, epoch=newest, wanted=wanted))
    return seen


def go_on(decision: DecisionBuilder, peer: str, agents: tuple[str, ...]) -> None:
    """A peer takes over none of these after all."""
    for name in agents:
        move = decision.hive.swarm.moves.get(name)
        if move is not None and move.claimed and not move.adopted and move.hive == peer:
            error = f"{peer} does not adopt it"
            decision.add(MoveFailed(agent=name, hive=peer, error=error, wanted=move.wanted))


def give_up(decision: DecisionBuilder, peer: str, told: envelopes.Adopted) -> None:
    """This hive was lost and is back: the agent belongs to the peer, or the peer is told that it does not."""
    hive, name = decision.hive, told.agent
    row, move = hive.agents.living_one(name), hive.swarm.moves.get(name)
    if row is not None and told.origin not in (None, hive.swarm.lineage(name, row.slot)[0]):
        return  # Another agent of this name: the one that the peer has was destroyed here.
    if (refusal := _refusal(hive, peer, told)) is not None:
        where, error = refusal
        decision.add(
            AdoptionRefused(
                agent=name[:LABEL_MAX_CHARS], peer=peer, hive=where, error=error, origin=told.origin, epoch=told.epoch
            )
        )
        if move is not None and move.claimed and not move.adopted and move.hive == peer:
            decision.add(MoveFailed(agent=name, hive=peer, error=error, wanted=move.wanted))
        return
    if row is None:
        return
    _leave(decision, name, peer, told.operator, told.until, told)


def _refusal(hive: Hive, peer: str, told: envelopes.Adopted) -> tuple[str, str] | None:
    """Where the agent is instead, and why the peer may not have it; None: it may."""
    here, name = str(hive.swarm.name), told.agent
    row, move, left = hive.agents.living_one(name), hive.swarm.moves.get(name), hive.swarm.moved.get(name)
    if told.operator not in hive.swarm.peer(peer).operators:
        return here, f"{told.operator[:40]!r} of {peer} may not adopt agents of {here}"
    if move is not None and move.sent:
        return (move.hive, f"{name} went to {move.hive} before {here} was lost") if move.hive != peer else None
    if row is not None:
        return None
    if left is not None and left.hive != peer:
        return left.hive, f"{name} is in {left.hive}"
    return None


def _leave(
    decision: DecisionBuilder, name: AgentName, to: str, operator: str, until: str, epoch: envelopes.Adopted
) -> None:
    """The agent is of another hive from here on; `EndAdopted` follows when its container is gone."""
    hive = decision.hive
    cancel_questions(decision, name)
    cancel_all(decision, name)
    for reminder in hive.reminders.of(name):
        decision.add(ReminderDropped(id=reminder.id, agent=name))
    adopted = Adopted(
        agent=name,
        source=str(hive.swarm.name),
        to=to,
        operator=operator,
        until=until,
        origin=epoch.origin,
        epoch=epoch.epoch,
    )
    decision.add(adopted)
    for message in [*hive.messages.in_flight(name), *hive.messages.waiting(name)]:
        decision.add(MessageDead(id=message.id, to=name, reason=f"{to} has adopted {name}"))
        if message.at > until and not is_remote(message.sender) and hive.swarm.peer(to).trusted:
            decision.send(message.sender, f"{name}@{to}", message.body)


def hand_over(decision: DecisionBuilder, peer: str, refusal: envelopes.AdoptionRefused) -> None:
    """An adoption here does not count: the hive that the agent came from says so."""
    hive, name = decision.hive, refusal.agent
    row = hive.agents.living_one(name)
    if row is None or refusal.origin is None:
        return
    origin, epoch = hive.swarm.lineage(name, row.slot)
    if (origin, epoch) != (refusal.origin, refusal.epoch) or not _adopted_from(hive, name, peer):
        return
    where = refusal.hive
    if not is_hive_name(where) or where == hive.swarm.name:
        raise Refused(f"{where[:40]!r} is not the name of another hive.")
    told = envelopes.Adopted(agent=name, operator=SYSTEM, until="", origin=origin, epoch=epoch)
    _leave(decision, name, where, SYSTEM, "", told)


def _adopted_from(hive: Hive, name: AgentName, peer: str) -> bool:
    known = hive.swarm.epochs.get(name)
    return known is not None and known.source == peer


def end_adopted(command: EndAdopted, hive: Hive, _: TimeMs) -> Decision:
    """The agent is a tombstone here."""
    move = hive.swarm.moves.get(command.agent)
    if move is None or not move.adopted or hive.agents.living_one(command.agent) is None:
        return []
    moved = Moved(agent=command.agent, source=str(hive.swarm.name), to=move.hive)
    return [moved, Destroyed(agent=command.agent, purge=False)]
