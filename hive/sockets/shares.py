"""The share of each agent: how many events and bytes its requests may cause, over all its connections.

Event-loop only. A request is checked before its body is parsed and before the journal is asked.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from hive.errors import LimitReached, ShareUsedUp
from hive.events.agents import Share
from hive.names import AgentName
from hive.settings import SHARES, LimitSettings
from hive.sockets.buckets import S_PER_MINUTE, Bucket, Seconds
from hive.sockets.intake import Intake

KIB: Final = 1024
MS_PER_S: Final = 1000
ROW_BYTES: Final = 256
"""Charged for each event besides its text: the other columns, the hash, the index and the rest of a page."""
RESERVE: Final = 0.1
"""Part of the burst that only the harness's process may use, and only for its own verbs."""
RESERVE_EVENTS_MIN: Final = 24
"""Enough for one turn with eight messages."""
RESERVE_BYTES_MIN: Final = 64 * KIB
NOTE_EVERY_S: Final = 60.0
"""How often refusals are reported to the journal."""
RETRY_MIN_MS: Final = 50

What = Literal["events", "bytes", "traffic", "connections"]
_WORDS: Final[dict[What, str]] = {
    "events": "{events} events a minute",
    "bytes": "{kib} KiB of messages a minute",
    "traffic": "{kib} KiB of replies and live lines a minute",
    "connections": "{connections} connections",
}


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a verb may write at most, and later events that it causes."""

    events: int = 0
    """Written now or later because of it; one more if it has an idempotency key."""
    copies: int = 0
    """How often the text of the request may be written."""
    writes: bool = False
    """It writes although its events were paid for before."""
    reads: bool = False
    """Its reply may be large, so an agent gets one such reply at a time."""
    live: bool = False
    """The request's text is traffic: it is kept in memory and not in the log."""
    harness: bool = False
    """The harness sends it by itself. Its process may use the reserve."""


class AgentShare:
    """The three buckets of one agent: events, bytes of the log, and traffic that is not in the log."""

    def __init__(
        self, name: AgentName, limits: Callable[[], LimitSettings], now: Seconds, refused: Callable[[What], None]
    ):
        self.name = name
        self.intake = Intake(now, lambda: self._limits().connections)
        self.reading = asyncio.Lock()
        """Held by the one read that is being answered; each may hold megabytes."""
        self._limits = limits
        self._refused = refused
        self._asked: Share | None = None
        self._tuned_to: tuple[LimitSettings, Share | None] = (limits(), None)
        tuning = self._tuning()
        self._buckets: dict[What, Bucket] = {
            what: Bucket(per_s, burst, now, reserve) for what, (per_s, burst, reserve) in tuning.items()
        }

    def ask_for(self, share: Share | None) -> None:
        """The share in the agent's approved configuration."""
        self._asked = share

    def check(self, cmd: str, cost: Cost, size: int, *, own: bool, copies: int = 0, keyed: bool = False) -> None:
        """Check that a request of `size` bytes can be paid, without taking anything.

        `own`: the harness's process sent it. `copies`: messages in addition to those of the verb.

        Raises:
            ShareUsedUp: not now.
        """
        reserved = own and cost.harness
        events, written = self._priced(cost, size, copies, keyed)
        if events:
            self._need("events", cmd, events, reserved)
            self._need("bytes", cmd, written, reserved)
        if cost.live or not reserved:
            self._need("traffic", cmd, size if cost.live else 1, reserved)

    def take(self, cmd: str, cost: Cost, size: int, *, own: bool, copies: int = 0, keyed: bool = False) -> None:
        """Pay for a request.

        Raises:
            ShareUsedUp: not now. LimitReached: it is larger than the whole burst.
        """
        events, written = self._priced(cost, size, copies, keyed)
        if events > self._bucket("events").burst or (written > self._bucket("bytes").burst and not cost.harness):
            raise LimitReached(
                f"{cmd} would write {events} events and {written // KIB} KiB, more than {self.name}'s whole burst;"
                " send less at once."
            )
        self.check(cmd, cost, size, own=own, copies=copies, keyed=keyed)
        if events:
            self._bucket("events").take(events)
            self._bucket("bytes").take(written)
        if cost.live:
            self._bucket("traffic").take(size)

    def charge(self, events: int) -> None:
        """Take events that were not known before; negative gives back what was not needed."""
        self._bucket("events").take(events)
        self._bucket("bytes").take(events * ROW_BYTES)

    def replied(self, size: int) -> None:
        """Take the bytes of a reply."""
        self._bucket("traffic").take(size)

    def affordable(self, each: int, wanted: int, *, own: bool) -> int:
        """How many things that cost `each` events can be paid now, at most `wanted`."""
        bucket = self._bucket("events")
        left = bucket.level() + (bucket.reserve if own else 0.0)
        return max(0, min(wanted, int(left // each)))

    def wait_s(self, events: int, *, own: bool) -> float:
        """Seconds until so many events can be paid."""
        return self._bucket("events").wait_s(events, reserved=own)

    def refusal(self, what: What, cmd: str, wait_s: float) -> ShareUsedUp:
        """The error for a request that cannot be paid now; counts it."""
        self._refused(what)
        per_minute = self._tuning()
        words = _WORDS[what].format(
            events=round(per_minute["events"][0] * S_PER_MINUTE),
            kib=round(per_minute["bytes"][0] * S_PER_MINUTE / KIB),
            connections=self._limits().connections,
        )
        wait_ms = max(RETRY_MIN_MS, round(wait_s * MS_PER_S) + 1)
        when = f"Try again in {wait_ms / MS_PER_S:.1f} s."
        return ShareUsedUp(f"{cmd} is refused: {self.name} has used up its share of {words}. {when}", wait_ms)

    def _need(self, what: What, cmd: str, amount: float, reserved: bool) -> None:
        wait_s = self._bucket(what).wait_s(amount, reserved=reserved)
        if wait_s > 0:
            raise self.refusal(what, cmd, wait_s)

    @staticmethod
    def _priced(cost: Cost, size: int, copies: int, keyed: bool) -> tuple[int, int]:
        """Events and bytes."""
        events = cost.events + copies + (keyed and (cost.events > 0 or cost.writes))
        return events, (cost.copies + copies) * size + events * ROW_BYTES

    def _bucket(self, what: What) -> Bucket:
        tuned_to = (self._limits(), self._asked)
        if tuned_to != self._tuned_to:
            self._tuned_to = tuned_to
            for key, tuning in self._tuning().items():
                self._buckets[key].retune(*tuning)
        return self._buckets[what]

    def _tuning(self) -> dict[What, tuple[float, float, float]]:
        """Tokens a second, burst and reserve of each bucket."""
        events, burst, kib, burst_kib = (
            getattr(self._asked, key, None) or getattr(self._limits(), key) or usual for key, usual in SHARES.items()
        )
        by_size = (kib * KIB / S_PER_MINUTE, burst_kib * KIB, max(RESERVE_BYTES_MIN, RESERVE * burst_kib * KIB))
        return {
            "events": (events / S_PER_MINUTE, burst, max(RESERVE_EVENTS_MIN, RESERVE * burst)),
            "bytes": by_size,
            "traffic": by_size,
        }


class Shares:
    """The share of every agent, and what is reported of refusals."""

    def __init__(
        self,
        limits: Callable[[], LimitSettings],
        report: Callable[[AgentName, int, What], None],
        now: Seconds,
    ):
        """`report(agent, refused, what)` is called at the first refusal and then at most once a minute."""
        self._limits = limits
        self._report = report
        self._now = now
        self.agents = 0
        """Agents that a broadcast may reach, the sender included."""
        self._of: dict[AgentName, AgentShare] = {}
        self._refused: dict[AgentName, int] = {}
        self._reported_s: dict[AgentName, float] = {}

    def of(self, name: AgentName) -> AgentShare:
        """The share of one agent."""
        share = self._of.get(name)
        if share is None:
            share = self._of[name] = AgentShare(name, self._limits, self._now, lambda what: self._count(name, what))
        return share

    def forget(self, name: AgentName) -> None:
        """Drop the share of a destroyed agent."""
        for kept in (self._of, self._refused, self._reported_s):
            kept.pop(name, None)

    def _count(self, name: AgentName, what: What) -> None:
        self._refused[name] = self._refused.get(name, 0) + 1
        last_s = self._reported_s.get(name)
        if last_s is None or self._now() - last_s >= NOTE_EVERY_S:
            self._reported_s[name] = self._now()
            self._report(name, self._refused.pop(name), what)
