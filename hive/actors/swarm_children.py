"""The actors of a swarm, in the order in which they start. Used by the wiring."""

from collections.abc import Callable
from typing import Any

import pykka

from hive.actors import adopter, mover, snapshots
from hive.actors.adopter import Adopter
from hive.actors.agent import Do
from hive.actors.journal_clients import BlockingJournalClient
from hive.actors.mover import Mover
from hive.actors.snapshots import Snapshots
from hive.actors.supervisor import Child
from hive.actors.swarm_link import SwarmStatus
from hive.clock import Clock
from hive.paths import Paths


def children(
    link: Callable[[], "pykka.ActorRef[Any]"],
    client: BlockingJournalClient,
    clock: Clock,
    paths: Paths,
    status: SwarmStatus,
    to_supervisor: Callable[[Do], bool],
) -> list[Child]:
    """The link, and then what needs it."""
    return [
        Child("swarm link", link),
        Child("mover", lambda: Mover.start(client, clock, paths, status, to_supervisor), listens=mover.LISTENS),
        Child("snapshots", lambda: Snapshots.start(client, clock, paths, status), listens=snapshots.LISTENS),
        Child("adopter", lambda: Adopter.start(client, clock, paths, status), listens=adopter.LISTENS),
    ]
