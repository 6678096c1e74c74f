"""Passes one HTTP request on and its response back, piece by piece as they arrive."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Final, Protocol

import h11

from hive.broker.streams import Gone, Headers, HttpStream, copy_both_ways, end_to_end

HEAD_OF_BODY_BYTES: Final = 64 * 1024
LEFT_LOOK_S: Final = 1.0
"""How often to check whether the client has closed its connection."""


class Watch(Protocol):
    """Sees a response pass."""

    def head(self, response: h11.Response, sent_bytes: int, head_of_body: bytes) -> None:
        """The response begins; the rest is of the request, as far as it was sent."""
        ...

    def data(self, data: bytes) -> bytes:
        """What to pass on of a piece of the body."""
        ...

    def rest(self) -> bytes:
        """What was held back."""
        ...


class Unwatched:
    """Passes everything on."""

    def head(self, response: h11.Response, sent_bytes: int, head_of_body: bytes) -> None:
        """Nothing of the head is needed."""

    def data(self, data: bytes) -> bytes:
        return data

    def rest(self) -> bytes:
        return b""


class UpstreamGone(Exception):
    """The other end failed before it answered; the client can still be told."""


class _Sent:
    def __init__(self) -> None:
        self.bytes = 0
        self.head = b""


async def relay(
    client: HttpStream,
    upstream: HttpStream,
    request: h11.Request,
    watch: Watch,
    response_headers: Callable[[Headers], Headers],
) -> None:
    """One exchange. Afterwards both streams are where h11 says; a switch of protocols is copied to its end.

    Raises:
        UpstreamGone: nothing was sent to the client yet. Gone: the exchange cannot be completed.
    """
    try:
        await upstream.send(request)
    except Gone as error:
        raise UpstreamGone from error
    sent = _Sent()
    sending = asyncio.ensure_future(_send_body(client, upstream, sent))
    try:
        await _unless_left(client, _pass_response(client, upstream, sent, watch, response_headers))
        if upstream.http.our_state is h11.SEND_BODY:
            return  # The answer came before the end of the request; both connections end with it.
        await sending
    finally:
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError, Gone, h11.ProtocolError):
            await sending


async def _unless_left(client: HttpStream, passing: Coroutine[None, None, None]) -> None:
    """Give up an answer that nobody waits for: a model would go on writing it. Raises Gone."""
    task = asyncio.ensure_future(passing)
    try:
        while not (await asyncio.wait({task}, timeout=LEFT_LOOK_S))[0]:
            if client.reader.at_eof():
                raise Gone
        await task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Gone, UpstreamGone, h11.ProtocolError):
            await task


async def _send_body(client: HttpStream, upstream: HttpStream, sent: _Sent) -> None:
    while client.http.their_state is h11.SEND_BODY:
        event = await client.next()
        if isinstance(event, h11.Data):
            data = bytes(event.data)
            sent.bytes += len(data)
            if len(sent.head) < HEAD_OF_BODY_BYTES:
                sent.head += data
            await upstream.send(h11.Data(data=data))
        elif isinstance(event, h11.EndOfMessage):
            await upstream.send(h11.EndOfMessage())
            return
        else:
            raise Gone
    await upstream.send(h11.EndOfMessage())


async def _pass_response(
    client: HttpStream, upstream: HttpStream, sent: _Sent, watch: Watch, response_headers: Callable[[Headers], Headers]
) -> None:
    has_begun = False
    while True:
        try:
            event = await upstream.next()
        except (Gone, h11.RemoteProtocolError) as error:
            if has_begun:
                raise Gone from error
            raise UpstreamGone from error
        match event:
            case h11.InformationalResponse(status_code=101):
                await _switch(client, upstream, event)
                return
            case h11.InformationalResponse():
                continue  # 100 was answered already; hints for browsers are of no use here.
            case h11.Response():
                has_begun = True
                watch.head(event, sent.bytes, sent.head)
                headers = response_headers(end_to_end(list(event.headers)))
                await client.send(
                    h11.Response(status_code=event.status_code, headers=headers, reason=bytes(event.reason))
                )
            case h11.Data():
                if data := watch.data(bytes(event.data)):
                    await client.send(h11.Data(data=data))
            case h11.EndOfMessage():
                if data := watch.rest():
                    await client.send(h11.Data(data=data))
                await client.send(h11.EndOfMessage())
                return
            case _:
                if has_begun:
                    raise Gone
                raise UpstreamGone


async def _switch(client: HttpStream, upstream: HttpStream, event: h11.InformationalResponse) -> None:
    headers = [*end_to_end(list(event.headers)), (b"connection", b"upgrade")]
    headers += [(name, value) for name, value in event.headers if name == b"upgrade"]
    await client.send(h11.InformationalResponse(status_code=101, headers=headers, reason=bytes(event.reason)))
    await copy_both_ways(
        (client.reader, client.writer),
        (upstream.reader, upstream.writer),
        client.pace,
        (client.http.trailing_data[0], upstream.http.trailing_data[0]),
    )
