"""The verbs about other hives: what they show, and decisions about their rows."""

import asyncio
from typing import Any, Final

from hive.clock import TimeMs
from hive.deciders.swarm import DecideThere
from hive.errors import Refused, Unavailable
from hive.events.envelopes import Verdict
from hive.events.swarm import DecisionDone
from hive.projections.hive import Hive
from hive.projections.swarm import Peer
from hive.sockets import views
from hive.sockets.host_session import HostSession, HostVerb, Reply
from hive.sockets.requests import Request

DECISION_TIMEOUT_S: Final = 15.0
"""For the other hive's answer; the decision stays on its way after that."""
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


SWARM_VERBS: Final[dict[str, HostVerb]] = {"swarm": HostVerb(Request, swarm)}
