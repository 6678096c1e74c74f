"""Connections to the servers that the operator named: model APIs, and hosts with a credential. Kept for a while."""

import asyncio
import contextlib
import ssl
import time
from typing import Final
from urllib.parse import urlsplit

import h11
import msgspec

from hive.broker.agent import CONNECT_TIMEOUT_S, set_no_delay
from hive.broker.pace import Pace
from hive.broker.relay import UpstreamGone
from hive.broker.streams import PULL_BYTES, HttpStream

KEPT_MAX: Final = 8
"""Idle connections of one agent."""
CONNECTING_MAX: Final = 8
"""At once of one agent: look-ups of names share threads with those of other agents."""
KEPT_S: Final = 20.0
"""Servers close idle connections, most after a minute or more."""


class Origin(msgspec.Struct, frozen=True):
    """Where a server is."""

    secure: bool
    host: str
    port: int
    path: str
    """Before every target; without a final slash."""

    @classmethod
    def parse(cls, url: str) -> "Origin":
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        return cls(secure, parts.hostname or "", parts.port or (443 if secure else 80), parts.path.rstrip("/"))

    @property
    def authority(self) -> bytes:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}").encode()

    def target(self, path: str) -> bytes:
        return (self.path + path).encode("ascii")


def client_tls() -> ssl.SSLContext:
    """The host's certificate authorities, or those that Python's packages bring."""
    context = ssl.create_default_context()
    if not context.get_ca_certs():
        import certifi

        context.load_verify_locations(certifi.where())
    return context


class Origins:
    """One agent's connections."""

    def __init__(self, tls: ssl.SSLContext, pace: Pace) -> None:
        self._tls = tls
        self._pace = pace
        self._connecting = asyncio.Semaphore(CONNECTING_MAX)
        self._kept: list[tuple[Origin, HttpStream, float]] = []

    async def take(self, origin: Origin) -> HttpStream:
        """An idle connection, or a new one. Raises UpstreamGone: it cannot be reached."""
        self._drop_old()
        for index, (known, stream, _) in enumerate(self._kept):
            if known == origin and stream.is_idle_and_open():
                del self._kept[index]
                return stream
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S), self._connecting:
                reader, writer = await asyncio.open_connection(
                    origin.host, origin.port, ssl=self._tls if origin.secure else None, limit=PULL_BYTES
                )
        except TimeoutError:
            raise UpstreamGone(f"{origin.host} does not answer.") from None
        except (OSError, ssl.SSLError) as error:
            raise UpstreamGone(f"{origin.host}: {error.strerror or error}.") from error
        set_no_delay(writer)
        await self._pace.step()
        return HttpStream(h11.CLIENT, reader, writer, self._pace)

    def give_back(self, origin: Origin, stream: HttpStream) -> None:
        """Keep the connection where its exchange is complete, close it otherwise."""
        http = stream.http
        if http.our_state is h11.DONE and http.their_state is h11.DONE and len(self._kept) < KEPT_MAX:
            with contextlib.suppress(h11.LocalProtocolError):
                http.start_next_cycle()
                self._kept.append((origin, stream, time.monotonic()))
                return
        stream.close()

    def close(self) -> None:
        for _, stream, _ in self._kept:
            stream.close()
        self._kept.clear()

    def _drop_old(self) -> None:
        cut = time.monotonic() - KEPT_S
        for one in [kept for kept in self._kept if kept[2] < cut or not kept[1].is_idle_and_open()]:
            self._kept.remove(one)
            one[1].close()
