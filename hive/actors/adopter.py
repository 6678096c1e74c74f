"""Takes over the agents of a lost hive from its replica, one by one."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import pykka
import structlog

from hive.actors import mail
from hive.actors.journal_clients import BlockingJournalClient
from hive.actors.swarm_link import SwarmStatus
from hive.backup.chunks import Chunks
from hive.clock import Clock, DurationMs
from hive.deciders.adoption import Adopt, BeginAdoption, EndAdoption, why_not_adoptable
from hive.errors import AlreadyDone, BadRequest, CorruptState, HiveError, LimitReached, NotFound, Refused, Unavailable
from hive.events.base import By, actor
from hive.events.codec import Codec
from hive.events.moves import AdoptionBegun, Claim
from hive.names import MANAGER, AgentName
from hive.paths import Paths
from hive.projections.hive import Hive, fold
from hive.projections.swarm import Adoption

log = structlog.get_logger()

BY: Final = actor("adopter")
LISTENS: Final = (AdoptionBegun,)
RETRY_MS: DurationMs = 2_000
"""After a step that failed, as without a connection."""
READ_TIMEOUT_S: Final = 300.0
ASK_TIMEOUT_S: Final = 30.0
ALIVE_S: Final = 20.0
"""A hive that has shown nothing for so long, while this one was connected, counts as lost."""


class Plan(msgspec.Struct, frozen=True):
    """What an adoption would do."""

    claims: tuple[Claim, ...]
    until: str
    left_out: dict[AgentName, str]
    """Agents that stay in the lost hive, and why."""
    mounts: dict[AgentName, list[str]]
    """Project folders on the lost host, which the agents do not have here."""


def begin(journal: BlockingJournalClient, status: SwarmStatus, source: str, by: By) -> Plan:
    """Claim the agents of a lost hive, on a thread of the caller.

    Raises:
        Refused: the hive is alive, or does not let this operator decide. NotFound: no such peer, no replica or no
        agent. Unavailable: no connection.
    """
    link = status.connected_link()
    if not journal.read(lambda hive: hive.swarm.peer(source).trusted):
        raise NotFound(f'hive "{source}" is not a peer of this hive')
    silent = link.silent_s(source)
    if silent < ALIVE_S:
        raise Refused(
            f"{source} is not lost: it has been silent for {silent:.0f} s while this hive was connected, and counts as"
            f" lost after {ALIVE_S:.0f} s. Agents of a living hive move with `hive move`."
        )
    heard = link.heard(source, ASK_TIMEOUT_S)
    there, until = _replica(status, source)
    plan = journal.read(lambda hive: _plan(hive, there, until, source, by))
    if taken := _claimed_by_others(status, source, plan.claims):
        left = {name: f"{hive} has adopted it, or is about to" for name, hive in taken.items()}
        claims = tuple(one for one in plan.claims if one.agent not in taken)
        plan = Plan(claims, plan.until, plan.left_out | left, plan.mounts)
    journal.ask(BeginAdoption(by=by, source=source, until=plan.until, heard=heard, claims=plan.claims))
    return plan


def _replica(status: SwarmStatus, source: str) -> tuple[Hive, str]:
    """The state of a hive as its replica gives it, and the time of its last event."""
    rows = status.connected_link().read_replica(source, READ_TIMEOUT_S)
    there, _ = fold(rows, Codec())
    return there, rows[-1].at


def _plan(here: Hive, there: Hive, until: str, source: str, by: By) -> Plan:
    """Raises Refused: the lost hive does not let this operator decide."""
    name = str(here.swarm.name)
    allowed = there.swarm.peer(name).operators
    if by.name not in allowed:
        raise Refused(
            f"{source} lets {', '.join(allowed) or 'no operator'} of {name} decide, not {by.name}; it would refuse the"
            f" adoption when it is back. This is set there, with: hive swarm trust {name} KEY --operators {by.name}"
        )
    claims, left_out, mounts = list[Claim](), dict[AgentName, str](), dict[AgentName, list[str]]()
    for row in there.agents.living():
        move = there.swarm.moves.get(row.name)
        if row.name == MANAGER:
            continue
        if move is not None and move.sent:
            left_out[row.name] = f"it went to {move.hive}"
            continue
        origin, epoch = there.swarm.lineage(row.name, row.slot)
        claim = Claim(agent=row.name, origin=origin, epoch=epoch + 1)
        if (why := why_not_adoptable(here, source, claim)) is not None:
            left_out[row.name] = why
        else:
            claims.append(claim)
            if folders := [one.host_path for one in there.agents.mounts_of(row.name)]:
                mounts[row.name] = folders
    return Plan(tuple(claims), until, left_out, mounts)


def _claimed_by_others(status: SwarmStatus, source: str, claims: tuple[Claim, ...]) -> dict[AgentName, str]:
    """Agents of which a third hive shows at least the epoch of the claim, and that hive."""
    seen = {name: one.screen.epochs for name, one in status.connected_link().status().seen.items() if name != source}
    return {
        one.agent: peer
        for one in claims
        for peer, epochs in seen.items()
        if epochs.get(one.origin, (0, ""))[0] >= one.epoch and epochs[one.origin][1] == peer
    }


class Adopter(pykka.ThreadingActor):
    """One adoption at a time: claim, show the claims, look whether the hive is still silent, take over, end.

    The lost hive shows itself before it reads the claims of others, and this one shows its claims before it looks for
    the lost hive. So one of them sees the other, whatever happens in between: a hive that comes back does not run what
    is claimed, and an adoption of a hive that was heard again ends.

    A crash loses nothing: the next one reads from the swarm projection what is claimed, and repeats the step that has
    no event yet.
    """

    use_daemon_thread = True

    def __init__(self, journal: BlockingJournalClient, clock: Clock, paths: Paths, status: SwarmStatus):
        super().__init__()
        self._journal = journal
        self._clock = clock
        self._paths = paths
        self._status = status
        self._cancel: Callable[[], None] = lambda: None

    def on_start(self) -> None:
        mail.tell(self.actor_ref, "look")

    def on_receive(self, _message: object) -> None:
        """Whatever came: what to do is in the state."""
        self._cancel()
        over = [self._went_on(one) for one in self._journal.read(lambda hive: list(hive.swarm.adoptions))]
        if not all(over):
            due = self._clock.now_ms() + RETRY_MS
            self._cancel = self._clock.call_at(due, lambda: mail.tell(self.actor_ref, "look"))

    def on_stop(self) -> None:
        self._cancel()

    def _went_on(self, adoption: Adoption) -> bool:
        """Whether the adoption is over."""
        source = adoption.source
        try:
            link = self._status.connected_link()
            link.show(self._journal.read(lambda hive: hive.seq), ASK_TIMEOUT_S)
            if link.heard(source, ASK_TIMEOUT_S) != adoption.heard:
                raise Refused(f"{source} was heard again")
            if taken := _claimed_by_others(self._status, source, adoption.claims):
                name, other = next(iter(taken.items()))
                raise Refused(f"{other} adopts {name} of {source}, too; look there, and try again")
            there, _ = _replica(self._status, source)
            for claim in adoption.claims:
                self._take(there, source, claim)
        except (Unavailable, OSError) as error:
            log.info("adoption.waits", source=source, error=str(error))
            return False
        except HiveError as error:
            self._journal.ask(EndAdoption(by=BY, source=source, error=str(error)))
        else:
            self._journal.ask(EndAdoption(by=BY, source=source))
        return True

    def _take(self, there: Hive, source: str, claim: Claim) -> None:
        if self._journal.read(lambda hive: hive.swarm.has(claim)):
            return
        has_files = self._place_files(source, claim.agent)
        try:
            self._journal.ask(_command(there, source, claim))
        except (AlreadyDone, LimitReached, BadRequest) as error:
            log.warning("adoption.passed_over", agent=claim.agent, error=str(error))
        else:
            log.info("adoption.taken", agent=claim.agent, source=source, with_files=has_files)

    def _place_files(self, source: str, name: AgentName) -> bool:
        """Where the lost hive left a snapshot; without one the agent starts from the template.

        Raises:
            Unavailable: no connection.
        """
        from hive.swarm import files, pieces

        with tempfile.TemporaryDirectory(prefix=".fetched-", dir=self._paths.state) as folder:
            chunks = Chunks(Path(folder))
            try:
                manifest = self._status.connected_link().get_files(source, files.snapshot(name), None, chunks)
                pieces.unpack(chunks, manifest, self._paths, name)
            except (Refused, CorruptState) as error:
                log.warning("adoption.without_files", agent=name, error=str(error))
                return False
        return True


def _command(there: Hive, source: str, claim: Claim) -> Adopt:
    row = there.agents.all[claim.agent]
    messages = [*there.messages.in_flight(row.name), *there.messages.waiting(row.name)]
    return Adopt(
        by=BY,
        agent=row.name,
        source=source,
        wanted=row.wanted_running or row.act == "spawn",
        paused=row.paused,
        model=row.model,
        reminders=tuple((one.message, one.due_ms) for one in there.reminders.of(row.name)),
        messages=tuple((one.sender, one.body) for one in messages),
    )
