"""Takes over the agents of a lost hive from its replica, one by one. Called by the sockets, on a thread."""

import tempfile
from pathlib import Path
from typing import Final

import structlog

from hive.actors.journal_clients import BlockingJournalClient
from hive.actors.swarm_link import SwarmStatus
from hive.deciders.adoption import Adopt
from hive.errors import AlreadyDone, HiveError, NotFound, Refused, Unavailable
from hive.events.base import By
from hive.events.codec import Codec
from hive.names import MANAGER, AgentName
from hive.paths import Paths
from hive.projections.agents import Agent
from hive.projections.hive import Hive, fold

log = structlog.get_logger()

READ_TIMEOUT_S: Final = 300.0
ALIVE_S: Final = 20.0
"""A hive that was seen so recently is not lost."""


def adopt_all(
    journal: BlockingJournalClient, status: SwarmStatus, paths: Paths, source: str, by: By
) -> list[AgentName]:
    """Take over every agent of a lost hive but its manager; those that were taken over before are passed over.

    Raises:
        Refused: the hive is alive. NotFound: no such peer or no replica. Unavailable: no connection.
    """
    link, now = status.link, status.now()
    if link is None or now is None:
        raise Unavailable("This hive is not connected to the swarm.")
    if not journal.read(lambda hive: hive.swarm.peer(source).trusted):
        raise NotFound(f'hive "{source}" is not a peer of this hive')
    seen = now.seen.get(source)
    if seen is not None and seen.age_s() < ALIVE_S:
        raise Refused(f"{source} was seen {seen.age_s():.0f} s ago and is not lost. Move its agents with `hive move`.")
    rows = link.read_replica(source, READ_TIMEOUT_S)
    there, _ = fold(rows, Codec())
    adopted = []
    for row in there.agents.living():
        move = there.swarm.moves.get(row.name)
        if row.name == MANAGER or (move is not None and move.sent):
            continue
        if journal.read(lambda hive, name=row.name: hive.agents.living_one(name) is not None):  # type: ignore[misc]
            continue
        _place_files(status, paths, source, row.name)
        try:
            journal.ask(_command(there, row, source, rows[-1].at, by))
        except AlreadyDone as error:
            log.warning("adoption.passed_over", agent=row.name, error=str(error))
            continue
        adopted.append(row.name)
    return adopted


def _place_files(status: SwarmStatus, paths: Paths, source: str, name: AgentName) -> None:
    """Where the lost hive left a snapshot; without one the agent starts from the template."""
    from hive.swarm import files

    link = status.link
    if link is None:
        raise Unavailable("This hive is not connected to the swarm.")
    with tempfile.TemporaryDirectory(prefix=".adopting-", dir=paths.state) as folder:
        archive = Path(folder) / "files"
        try:
            link.run(lambda client, _: files.get(client, source, f"snapshot-{name}", archive), READ_TIMEOUT_S)
            files.unpack(archive, files.digest_of(archive), paths, name)
        except Unavailable:
            raise
        except HiveError as error:
            log.warning("adoption.without_files", agent=name, error=str(error))


def _command(there: Hive, row: Agent, source: str, until: str, by: By) -> Adopt:
    messages = [*there.messages.in_flight(row.name), *there.messages.waiting(row.name)]
    return Adopt(
        by=by,
        agent=row.name,
        source=source,
        until=until,
        paused=row.paused,
        model=row.model,
        reminders=tuple((one.message, one.due_ms) for one in there.reminders.of(row.name)),
        messages=tuple((one.sender, one.body) for one in messages),
    )
