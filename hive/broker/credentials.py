"""Hosts for which the operator has a credential: served under a path, the credential added here."""

from typing import Final
from urllib.parse import unquote, urlsplit

import h11

from hive.broker.agent import Agent
from hive.broker.metering import Redactor
from hive.broker.origin import Origin, Origins
from hive.broker.relay import Unwatched, UpstreamGone, relay
from hive.broker.streams import Headers, HttpStream, end_to_end
from hive.broker.wire import Credential

PREFIX: Final = "/host/"
TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
DROPPED: Final = (
    b"host",
    b"authorization",
    b"cookie",
    b"accept-encoding",
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-host",
)


class _CredentialWatch(Unwatched):
    """Keeps the secret out of answers."""

    def __init__(self, credential: Credential) -> None:
        self._redactor = Redactor(*credential.secrets)

    def data(self, data: bytes) -> bytes:
        return self._redactor.feed(data)

    def rest(self) -> bytes:
        return self._redactor.rest()


async def serve_host(client: HttpStream, request: h11.Request, target: str, agent: Agent, origins: Origins) -> None:
    """Answer one request under `/host/NAME/…`. Raises Gone, h11.ProtocolError."""
    name, _, rest = target.removeprefix(PREFIX).partition("/")
    credential = next((one for one in agent.policy.credentials if one.host == name), None)
    if credential is None:
        await _refuse(client, 404, f'hive: agent "{agent.name}" has no credential for {name[:200]}.')
        return
    path, question, query = ("/" + rest).partition("?")
    method = request.method.decode("ascii", "replace")
    if not _may(credential, method, path):
        await _refuse(client, 403, f"hive: the credential for {name} does not cover {method} {path[:200]}.")
        return
    origin = Origin.parse(credential.url)
    header = credential.header.lower().encode()
    headers = [
        (b"host", origin.authority),
        (b"accept-encoding", b"identity"),
        *end_to_end(list(request.headers), *DROPPED, header),
        (header, credential.value.encode()),
    ]
    try:
        upstream = await origins.take(origin)
    except UpstreamGone as error:
        await _refuse(client, 502, f"hive: {name} cannot be reached: {error}")
        return
    onward = h11.Request(method=request.method, target=origin.target(path + question + query), headers=headers)
    try:
        await relay(
            client, upstream, onward, _CredentialWatch(credential), lambda given: _answer_headers(given, credential)
        )
    except UpstreamGone:
        await _refuse(client, 502, f"hive: {name} closed the connection.")
    finally:
        origins.give_back(origin, upstream)


def _may(credential: Credential, method: str, path: str) -> bool:
    """A path with dots, or encoded twice, is refused: servers differ in what they make of it."""
    plain = unquote(path)
    if any(part in (".", "..") for part in plain.split("/")) or "//" in plain or "%" in plain or "\\" in plain:
        return False
    if credential.methods is not None and method not in credential.methods:
        return False
    return credential.paths is None or any(_is_below(plain, prefix) for prefix in credential.paths)


def _is_below(path: str, prefix: str) -> bool:
    bare = prefix.rstrip("/")
    return path == bare or path.startswith((f"{bare}/", f"{bare}.git/")) or path == f"{bare}.git"


def _answer_headers(headers: Headers, credential: Credential) -> Headers:
    """Redirects within the host stay under the path, so that the credential is added again."""
    secrets = [secret.encode() for secret in credential.secrets]
    kept = [
        (name, given)
        for name, given in headers
        if name != b"set-cookie" and not any(secret in given for secret in secrets)
    ]
    return [(name, _moved(given, credential) if name == b"location" else given) for name, given in kept]


def _moved(location: bytes, credential: Credential) -> bytes:
    text = location.decode("latin-1")
    parts, real = urlsplit(text), urlsplit(credential.url)
    if parts.netloc and (parts.scheme, parts.netloc) != (real.scheme, real.netloc):
        return location
    if not text.startswith("/") and not parts.netloc:
        return location
    path = parts.path.removeprefix(real.path) if real.path else parts.path
    return (f"{PREFIX}{credential.host}{path}" + (f"?{parts.query}" if parts.query else "")).encode("latin-1")


async def _refuse(client: HttpStream, status: int, reason: str) -> None:
    await client.discard_body()
    await client.respond(status, [TEXT], f"{reason}\n".encode())
