"""Rebuilds a hive's log from its replica. Used by the command line, without a daemon."""

import asyncio
from pathlib import Path

from hive.audit.transfer import import_rows
from hive.clock import SystemClock
from hive.errors import NotFound
from hive.events.chain import Head, Row
from hive.paths import Paths
from hive.swarm import keys, replica
from hive.swarm.connection import open_connection
from hive.swarm.server import swarm_settings


def restore(paths: Paths, hive: str, out: Path) -> Head:
    """Write the log of a hive into a new state folder; its head.

    Raises:
        NotFound: no such hive or no replica. Unavailable: no server. CorruptState, Refused: it does not hold.
    """
    rows = asyncio.run(_rows(paths, hive))
    return import_rows(Paths(out.absolute(), out.absolute() / "run"), rows, SystemClock().now_ms())


async def _rows(paths: Paths, hive: str) -> list[Row]:
    swarm, key = swarm_settings(paths), keys.load(paths.state)
    if hive == swarm.name:
        signer = keys.PeerKey(key.public)
    elif hive in swarm.peers:
        signer = keys.PeerKey(swarm.peers[hive].key)
    else:
        raise NotFound(f"{hive} is not a peer of this hive. Peers: {', '.join(swarm.peers) or 'none'}.")

    async def lost() -> None:
        return

    client = await open_connection(paths.state, swarm, key, lost)
    try:
        return await replica.read(client, hive, signer)
    finally:
        await client.close()
