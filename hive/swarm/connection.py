"""Opens NATS connections as this hive, and pulls messages of a consumer."""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import StreamConfig
from nats.js.client import JetStreamContext
from nats.js.errors import APIError, NotFoundError

from hive.deciders.base import Command
from hive.errors import BadRequest, Unavailable
from hive.projections.hive import Hive
from hive.settings import SwarmSettings, secret
from hive.swarm import keys, subjects, tls

T = TypeVar("T")

CONNECT_TIMEOUT_S: Final = 5.0
PING_EVERY_S: Final = 5
PINGS_MISSED_MAX: Final = 2
"""After so many the connection counts as lost: a partition closes no socket."""
RECONNECT_WAIT_S: Final = 0.5
REQUEST_TIMEOUT_S: Final = 5.0
REPLICAS: Final = 3
"""Of each stream, where the servers are a cluster."""
PULL_EXPIRES_S: Final = 20.0
PULL_BATCH: Final = 500
PULL_MARGIN_S: Final = 2.0
"""After its expiry a pull without a word is made again."""

CONNECTION_ERRORS: Final = (NatsError, OSError, TimeoutError, EOFError)
"""What a broken link raises. Nothing is lost by it."""


class Journal(Protocol):
    """The daemon's journal, for the link's loop."""

    def ask(self, command: Command) -> Awaitable[Any]: ...

    async def read(self, query: Callable[[Hive], T]) -> T: ...


async def open_connection(
    state: Path,
    swarm: SwarmSettings,
    key: keys.HiveKey,
    lost: Callable[[], Awaitable[None]],
    again: Callable[[], Awaitable[None]] | None = None,
) -> Client:
    """A connection that reconnects by itself for as long as it is open; `again` is called when it has.

    Raises:
        Unavailable: no server answers, or none takes this hive's key. BadRequest: bad credentials.
    """
    options: dict[str, Any] = {"nkeys_seed_str": key.seed}
    if swarm.credentials_file is not None:
        text = _credentials(state, swarm.credentials_file)
        is_seed = text.startswith("SU")
        options = {"nkeys_seed_str": text} if is_seed else {"user_credentials": str(state / swarm.credentials_file)}
    if any(url.startswith("tls://") for url in swarm.servers):
        context = tls.public_context()
    else:
        context = tls.client_context(
            [keys.PeerKey(key.public), *(keys.PeerKey(one.key) for one in swarm.peers.values())]
        )
    client = Client()
    problem = "no server answered"

    async def failed(error: Exception) -> None:
        nonlocal problem
        problem = str(error) or type(error).__name__

    try:
        await asyncio.wait_for(
            client.connect(
                list(swarm.servers),
                name=f"hive {swarm.name}",
                tls=context,
                inbox_prefix=subjects.reply_prefix(str(swarm.name)),
                connect_timeout=round(CONNECT_TIMEOUT_S),
                ping_interval=PING_EVERY_S,
                max_outstanding_pings=PINGS_MISSED_MAX,
                reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]  # It sleeps for so many seconds.
                max_reconnect_attempts=-1,
                error_cb=failed,
                disconnected_cb=lost,
                reconnected_cb=again,
                **options,
            ),
            CONNECT_TIMEOUT_S * (1 + len(swarm.servers)),
        )
    except (*CONNECTION_ERRORS, ValueError) as error:
        await _closed(client)
        said = str(error) or problem
        raise Unavailable(f"No NATS server of {', '.join(swarm.servers)} can be used: {said}.") from error
    return client


async def _closed(client: Client) -> None:
    try:
        await asyncio.wait_for(client.close(), CONNECT_TIMEOUT_S)
    except CONNECTION_ERRORS:
        return


def _credentials(state: Path, file: str) -> str:
    try:
        return secret(state, file)
    except BadRequest:
        path = state / file
        if path.exists() and not path.stat().st_mode & 0o077 and "BEGIN NATS" in path.read_text():
            return ""  # A file with a JWT and a seed has more than one line.
        raise


async def ensure_stream(js: JetStreamContext, **config: Any) -> None:
    """Make a stream if it is missing: with three replicas where the servers are a cluster that has them."""
    try:
        await js.stream_info(config["name"])
    except NotFoundError:
        await _create_stream(js, config)


async def _create_stream(js: JetStreamContext, config: dict[str, Any]) -> None:
    for replicas in (REPLICAS, 1):
        try:
            await js.add_stream(StreamConfig(**config, num_replicas=replicas))
        except APIError as error:
            if replicas == 1 or error.err_code == ALREADY_EXISTS:
                raise
        else:
            return


ALREADY_EXISTS: Final = 10_058


class Puller:
    """Messages of one consumer in their order, a batch at a time."""

    def __init__(self, client: Client, stream: str, consumer: str):
        self._client = client
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._came = asyncio.Event()
        self._messages: deque[Msg] = deque()
        self._left = 0
        self._subscription: Any = None
        self._reply = ""

    async def batch(self, expires_s: float = PULL_EXPIRES_S) -> list[Msg]:
        """What there is; waits for the first message. Empty when nothing came in time.

        Raises:
            NatsError: the consumer or its stream is gone, or no server answers for it.
        """
        if self._subscription is None:
            self._reply = self._client.new_inbox()
            self._subscription = await self._client.subscribe(self._reply, cb=self._on_message)
        if self._left <= 0 and not self._messages:
            request = {"batch": PULL_BATCH, "expires": round(expires_s * 1e9)}
            await self._client.publish(self._subject, json.dumps(request).encode(), reply=self._reply)
            self._left = PULL_BATCH
        if not self._messages:
            self._came.clear()
            try:
                await asyncio.wait_for(self._came.wait(), expires_s + PULL_MARGIN_S)
            except TimeoutError:
                self._left = 0
                return []
        found = []
        while self._messages:
            message = self._messages.popleft()
            if message.data or not (status := (message.headers or {}).get("Status")):
                self._left -= 1
                found.append(message)
                continue
            self._left = 0
            if status not in ("404", "408"):  # Not the end of the wait.
                raise NatsError(f"nats: {status} {(message.headers or {}).get('Description', '')}")
        return found

    async def close(self) -> None:
        if self._subscription is not None and not self._client.is_closed:
            await self._subscription.unsubscribe()

    async def _on_message(self, message: Msg) -> None:
        self._messages.append(message)
        self._came.set()


def is_encrypted(client: Client) -> bool:
    """Whether the connection is TLS."""
    transport = getattr(client, "_transport", None)
    writer = getattr(transport, "_io_writer", None)
    return writer is not None and writer.get_extra_info("ssl_object") is not None
