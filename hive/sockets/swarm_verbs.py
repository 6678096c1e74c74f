"""The verbs about other hives: what they show, and decisions about their rows."""

import asyncio
from typing import Any, Final

from hive.actors import adopter
from hive.actors.adopter import Plan
from hive.actors.swarm_link import SwarmStatus
from hive.clock import TimeMs
from hive.deciders.moves import BeginMove
from hive.deciders.swarm import DecideThere
from hive.errors import Refused, Unavailable
from hive.events.base import Seq
from hive.events.envelopes import Verdict
from hive.events.moves import AdoptionEnded, Moved, MoveFailed
from hive.events.swarm import DecisionDone
from hive.projections.hive import Hive
from hive.projections.swarm import Peer
from hive.sockets import views
from hive.sockets.host_session import HostSession, HostVerb, Reply
from hive.sockets.requests import Request

DECISION_TIMEOUT_S: Final = 15.0
"""For the other hive's answer; the decision stays on its way after that."""
MOVE_TIMEOUT_S: Final = 300.0
SHOWN_MAX: Final = 500
"""Rows of one kind on a screen that others see."""
TEXT_MAX_CHARS: Final = 1_000
"""Of one text there."""


def draw(hive: Hive) -> dict[str, Any]:
    """What other hives show of this one. Called on the journal's thread."""
    return {
        "agents": [_shown(views.swarm_agent(row, hive)) for row in hive.agents.living()[:SHOWN_MAX]],
        "approvals": [_shown(views.approval(row)) for row in hive.approvals.pending()[:SHOWN_MAX]],
        "questions": [_shown(views.question(row)) for row in hive.questions.pending() if row.target is None][
            :SHOWN_MAX
        ],
    }


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value[:TEXT_MAX_CHARS] + "…" if isinstance(value, str) and len(value) > TEXT_MAX_CHARS else value
        for key, value in row.items()
    }


async def swarm(session: HostSession, _: Request) -> Reply:
    """This hive's place in the swarm, and every peer with its newest screen and the age of that."""
    settings = session.services.settings().swarm
    status = session.services.swarm.now()
    peers, seq, owed, own = await session.services.journal.read(_read)
    now = session.services.clock.now_ms()
    known: dict[str, Any] = {
        "name": settings.name,
        "servers": settings.servers,
        "connected": status is not None and status.connected,
        "server": None if status is None else status.server,
        "encrypted": status is not None and status.encrypted,
        "problem": session.services.swarm.problem if status is None else status.problem,
        "head": seq,
        "shipped": None if status is None else status.shipped,
        "lag": None if status is None else max(0, seq - status.shipped),
        "copies": None if status is None else status.copies,
    }
    rows = []
    for peer in sorted(peers, key=lambda row: row.hive):
        seen = None if status is None else status.seen.get(peer.hive)
        row = _peer(peer)
        if peer.hive in owed:
            row["oldest_owed_seconds"] = max(0, now - owed[peer.hive]) // 1000
        if seen is not None:
            row |= {"age_seconds": round(seen.age_s(), 1), "seq": seen.screen.seq, **seen.screen.state}
        rows.append(row)
    return {"swarm": {key: value for key, value in known.items() if value is not None}, "own": own, "peers": rows}


def peers_seen(status: SwarmStatus) -> list[dict[str, Any]]:
    """The newest screen of each connected or remembered peer, by name, with its age."""
    now = status.now()
    seen = {} if now is None else now.seen
    return [
        {"name": name, "age_seconds": round(one.age_s(), 1), "seq": one.screen.seq, **one.screen.state}
        for name, one in sorted(seen.items())
    ]


def connection(status: SwarmStatus, seq: Seq) -> dict[str, Any]:
    """Whether this hive is connected, and how many events of its log are not in the swarm yet."""
    now = status.now()
    if now is None:
        return {"connected": False, "problem": status.problem}
    return {"connected": now.connected, "problem": now.problem, "lag": max(0, seq - now.shipped)}


def figures(status: SwarmStatus, hive: Hive) -> dict[str, Any] | None:
    """For the metrics; None outside a swarm."""
    now = status.now()
    if now is None:
        return None
    return {
        "connected": int(now.connected),
        "lag": max(0, hive.seq - now.shipped),
        "owed": {row.hive: row.sent - row.receipted for row in hive.swarm.peers if row.trusted},
        "ages": {name: round(one.age_s(), 1) for name, one in now.seen.items()},
    }


def _read(hive: Hive) -> tuple[list[Peer], int, dict[str, TimeMs], dict[str, Any]]:
    """Peers, position, the age of the oldest envelope owed to each peer, and this hive's screen."""
    oldest = {peer.hive: next(iter(hive.swarm.owed(peer.hive, 1)), None) for peer in hive.swarm.peers}
    owed = {name: one.at_ms for name, one in oldest.items() if one is not None}
    return list(hive.swarm.peers), hive.seq, owed, draw(hive)


def _peer(row: Peer) -> dict[str, Any]:
    return {
        "name": row.hive,
        "trusted": row.trusted,
        "operators": row.operators,
        "sent": row.sent,
        "owed": row.sent - row.receipted,
        "received": row.received,
    }


async def decide_there(
    session: HostSession, request: Any, verdict: Verdict, *, text: str | None = None, sha: str | None = None
) -> Reply:
    """Send a decision to the hive that owns the row, and wait for what it says.

    Raises:
        Refused: that hive refused it. Unavailable: no answer in time; the decision stays on its way.
    """
    hive = request.hive
    command = DecideThere(by=session.by, hive=hive, verdict=verdict, subject=request.id, text=text, sha=sha)
    with session.services.hub.following() as feed:
        decided = await session.services.journal.ask(command, request.key)
        id = decided.first().id
        try:
            async with asyncio.timeout(DECISION_TIMEOUT_S):
                while True:
                    for recorded in await feed.next():
                        if isinstance(recorded.event, DecisionDone) and recorded.event.id == id:
                            return _outcome(hive, recorded.event)
        except TimeoutError:
            raise Unavailable(
                f"{hive} has not answered yet. The decision is on its way and counts when it arrives."
            ) from None


def _outcome(hive: str, done: DecisionDone) -> Reply:
    if done.error is not None:
        raise Refused(f"{hive}: {done.error}")
    return {"hive": hive, "decision": done.id}


class MoveTo(Request, frozen=True, kw_only=True):
    name: str
    hive: str
    without_mounts: bool = False


async def move(session: HostSession, request: MoveTo) -> Reply:
    """Move an agent to a peer; the reply comes when it is there.

    Raises:
        Refused: it cannot move, or the peer refuses it. Unavailable: it is still on its way.
    """
    with session.services.hub.following() as feed:
        command = BeginMove(by=session.by, agent=request.name, hive=request.hive, without_mounts=request.without_mounts)
        await session.services.journal.ask(command, request.key)
        try:
            async with asyncio.timeout(MOVE_TIMEOUT_S):
                while True:
                    for recorded in await feed.next():
                        event = recorded.event
                        if isinstance(event, Moved) and event.agent == request.name:
                            return {"name": request.name, "hive": request.hive}
                        if isinstance(event, MoveFailed) and event.agent == request.name:
                            raise Refused(f"{request.name} stays here: {event.error}")
        except TimeoutError:
            text = f"{request.name} is still on its way to {request.hive}; look at: hive log --agent {request.name}"
            raise Unavailable(text) from None


class OfHive(Request, frozen=True, kw_only=True):
    hive: str


async def adopt(session: HostSession, request: OfHive) -> Reply:
    """Take over the agents of a lost hive; the reply comes when it is over.

    Raises:
        HiveError: nothing was taken over. Unavailable: it goes on.
    """
    services, source = session.services, request.hive
    with services.hub.following() as feed:
        plan = await asyncio.to_thread(adopter.begin, services.blocking_journal, services.swarm, source, session.by)
        try:
            async with asyncio.timeout(MOVE_TIMEOUT_S):
                while True:
                    for recorded in await feed.next():
                        if isinstance(recorded.event, AdoptionEnded) and recorded.event.source == source:
                            return _adopted(source, recorded.event, plan)
        except TimeoutError:
            text = f"The agents of {source} are still being adopted; look at: hive log --type Adopted"
            raise Unavailable(text) from None


def _adopted(source: str, ended: AdoptionEnded, plan: Plan) -> Reply:
    taken = [one.agent for one in plan.claims if one.agent not in ended.given_up]
    if not taken:
        raise Refused(f"Nothing was adopted: {ended.error or 'no agent could be placed here'}.")
    given_up = dict.fromkeys(ended.given_up, ended.error or "it could not be placed here")
    return {"hive": source, "agents": taken, "left": plan.left_out | given_up, "mounts": plan.mounts}


SWARM_VERBS: Final[dict[str, HostVerb]] = {
    "swarm": HostVerb(Request, swarm),
    "move": HostVerb(MoveTo, move),
    "adopt": HostVerb(OfHive, adopt),
}
