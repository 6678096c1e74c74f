"""The actors of a swarm, in the order in which they start. Used by the wiring."""

from collections.abc import Callable
from typing import Any, Final

import pykka

from hive.actors.agent import Do
from hive.actors.journal_clients import BlockingJournalClient
from hive.actors.mover import LISTENS, Mover
from hive.actors.supervisor import Child
from hive.actors.swarm_link import SwarmStatus
from hive.clock import Clock
from hive.paths import Paths
from hive.settings import Settings

INBOX_WAIT_S: Final = 5.0
"""At the start, for the news of a peer that has adopted agents of this hive; without a connection they start."""


def children(
    link: Callable[[], "pykka.ActorRef[Any]"],
    client: BlockingJournalClient,
    clock: Clock,
    paths: Paths,
    settings: Callable[[], Settings],
    status: SwarmStatus,
    to_supervisor: Callable[[Do], bool],
) -> list[Child]:
    """The link, and then what needs it; agents start after them."""

    def mover() -> "pykka.ActorRef[Any]":
        if settings().swarm.name is not None:
            status.await_inbox(INBOX_WAIT_S)
        return Mover.start(client, clock, paths, status, to_supervisor)

    return [Child("swarm link", link), Child("mover", mover, listens=LISTENS)]
