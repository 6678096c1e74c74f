"""Decodes request lines into typed Structs and encodes replies. Both protocols use it."""

import difflib
import re
from typing import Annotated, Any

import msgspec

from hive.errors import BadRequest, HiveError, ShareUsedUp

Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""Signed 64-bit."""
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Limit = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=10**12)]
"""A number that an agent reports. The bound keeps sums of millions of them within 64 bits."""
Short = Annotated[str, msgspec.Meta(max_length=8_192)]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all requests. Unknown keys are ignored, so a `from` field has no effect."""

    key: str | None = None
    """Idempotency key: a repeated key returns the first answer."""


class _Envelope(msgspec.Struct, frozen=True):
    cmd: str


_CMD = re.compile(rb'"cmd"\s*:\s*"(\w{1,40})"')
_PEEK_BYTES = 512


def peek(line: bytes) -> str | None:
    """The probable `cmd` without parsing the line; None if it stands neither near the start nor near the end.

    The decoded request has the last word: this may be a key of a nested object.
    """
    found = _CMD.search(line, 0, _PEEK_BYTES) or _CMD.search(line, max(0, len(line) - _PEEK_BYTES))
    return None if found is None else found[1].decode()


class RequestDecoder:
    """Decodes the requests of one protocol by their `cmd`."""

    def __init__(self, requests: dict[str, type[Request]]):
        self._decoders = {cmd: msgspec.json.Decoder(request).decode for cmd, request in requests.items()}
        self._envelope = msgspec.json.Decoder(_Envelope).decode

    def decode(self, line: bytes) -> tuple[str, Request]:
        """Return the command's name and its request.

        Raises:
            BadRequest: not JSON, no `cmd`, an unknown `cmd`, or wrong fields.
        """
        if not line:
            raise BadRequest("The line is empty; a request is a JSON object.")
        try:
            cmd = self._envelope(line).cmd
        except msgspec.ValidationError:
            raise BadRequest('A request is a JSON object with a "cmd".') from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(f"Not a line of JSON: {error}.") from None
        except RecursionError:
            raise BadRequest("The line's JSON is nested too deeply.") from None
        decode = self._decoders.get(cmd)
        if decode is None:
            near = difflib.get_close_matches(cmd, self._decoders, n=1)
            raise BadRequest(f"unknown cmd {cmd[:64]!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        try:
            return cmd, decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(f"{cmd}: {error}") from None
        except RecursionError:
            raise BadRequest(f"{cmd}: the line's JSON is nested too deeply.") from None


_encode = msgspec.json.Encoder().encode


def ok_reply(data: dict[str, Any], **head: Any) -> bytes:
    """`{"ok":true,…}`. Keys with the value None are left out."""
    return _encode({**head, "ok": True, **{key: value for key, value in data.items() if value is not None}})


def error_reply(error: Exception, **head: Any) -> bytes:
    """`{"ok":false,"error":…,"code":…}`, on one line."""
    code = error.code if isinstance(error, HiveError) else "internal"
    text = (
        str(error)
        if isinstance(error, HiveError)
        else f"Internal error ({type(error).__name__}); see the daemon's log."
    )
    wait = {"retry_after_ms": error.retry_after_ms} if isinstance(error, ShareUsedUp) else {}
    return _encode({**head, "ok": False, "error": " ".join(text.split()), "code": code, **wait})
