"""Raises the number of copies of this hive's streams as soon as the servers are a cluster that is large enough."""

import asyncio
from typing import Final

import structlog
from nats.aio.client import Client
from nats.js.errors import APIError, NotFoundError

from hive.swarm import subjects
from hive.swarm.connection import CONNECTION_ERRORS, REPLICAS

log = structlog.get_logger()

LOOK_EVERY_S: Final = 15.0
PAUSE_S: Final = 1.0


class Replication:
    """A stream that was made before all servers ran has one copy, and would be gone with its server."""

    def __init__(self, client: Client, hive: str):
        self._js = client.jetstream()
        self._streams = [subjects.inbox_stream(hive), *subjects.public_streams(hive)]
        self.copies: int | None = None
        """The fewest that a stream of this hive has; None: not known yet."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                copies = [await self._copies(stream) for stream in self._streams]
                self.copies = min((one for one in copies if one is not None), default=None)
                await asyncio.sleep(LOOK_EVERY_S if self.copies is not None else PAUSE_S)
            except CONNECTION_ERRORS as error:
                log.info("swarm.replication_waits", error=str(error))
                await asyncio.sleep(PAUSE_S)

    async def _copies(self, stream: str) -> int | None:
        """Copies of one stream, after an attempt to have enough; None: it is not there yet."""
        try:
            info = await self._js.stream_info(stream)
        except NotFoundError:
            return None
        if (info.config.num_replicas or 1) >= REPLICAS:
            return info.config.num_replicas
        try:
            await self._js.update_stream(info.config, num_replicas=REPLICAS)
        except APIError as error:
            log.debug("swarm.too_few_servers", stream=stream, error=str(error))
            return info.config.num_replicas or 1
        log.info("swarm.replicated", stream=stream, copies=REPLICAS)
        return REPLICAS
