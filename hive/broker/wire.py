"""The messages between daemon and broker: JSON lines over a socket pair. Listening sockets travel beside them."""

import socket
from typing import Final, Literal, Protocol

import msgspec

from hive.turn_columns import MeteredUse

LINE_MAX_BYTES: Final = 16 * 1024 * 1024
READ_BYTES: Final = 64 * 1024
DESCRIPTORS_MAX: Final = 64
"""Received with one read; the kernel allows 253."""

Mode = Literal["none", "listed", "ask", "open"]
Shape = Literal["anthropic", "openai"]
Outcome = Literal["allowed", "denied", "asked", "address", "failed"]
"""`address`: the name leads to a private address. `failed`: it was allowed and could not be reached."""


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """One model API, reached under `/model/<name>`."""

    name: str
    url: str
    shape: Shape
    key: str | None = None
    """Added to every request. None: the agent has a login of its own, and its header passes."""


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """A secret for one host, reached under `/host/<host>`."""

    host: str
    """`name` or `name:port`."""
    url: str
    """Scheme and authority of the real host."""
    header: str
    value: str
    secrets: tuple[str, ...]
    """What no answer may contain."""
    methods: tuple[str, ...] | None = None
    """None: every method."""
    paths: tuple[str, ...] | None = None
    """Prefixes such as `/group/project`; None: every path."""


class Policy(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What an agent may do. Replaces the policy before it, also for connections that are open."""

    agent: str
    mode: Mode
    allow: tuple[str, ...] = ()
    """Entries `host`, `host:port` and `*.domain`."""
    login: tuple[str, ...] = ()
    """Entries for the agent's own login to the model, allowed in every mode."""
    deny: tuple[str, ...] = ()
    """Overrides `allow` and `login`."""
    providers: tuple[Provider, ...] = ()
    credentials: tuple[Credential, ...] = ()
    refusal: str | None = None
    """Why model requests are refused now, such as a budget that is used up."""


class Listen(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A listening socket of the agent; its descriptor travels with this message."""

    agent: str


class Watch(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An inotify descriptor travels with this message: policies depend on files with these names."""

    names: tuple[str, ...]


class Settled(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Every policy was sent as the files were after this change."""

    number: int


class Forget(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The agent is gone: close its sockets and connections."""

    agent: str


ToBroker = Policy | Listen | Watch | Settled | Forget


class Used(MeteredUse, frozen=True, kw_only=True, tag=True):
    """One model request, metered."""

    agent: str
    model: str
    requests: int = 1


class Asked(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A try under mode `ask` at a host that no entry lists; the operator is to decide."""

    agent: str
    host: str
    port: int


class Try(msgspec.Struct, frozen=True, kw_only=True):
    """Tries of an agent at one destination with one outcome."""

    host: str
    port: int
    outcome: Outcome
    count: int
    last_ms: int


class Tries(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What changed in the newest tries of an agent."""

    agent: str
    tries: tuple[Try, ...]


class Changed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A file that policies depend on has changed; answered by `Settled` with the same number."""

    number: int


FromBroker = Used | Asked | Tries | Changed

_to_broker = msgspec.json.Decoder(ToBroker)
_from_broker = msgspec.json.Decoder(FromBroker)


def encoded(message: ToBroker | FromBroker) -> bytes:
    return msgspec.json.encode(message) + b"\n"


class Lines:
    """Splits what is read into lines.

    Raises:
        ValueError: a line is over the limit.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_MAX_BYTES:
            raise ValueError(f"a line over {LINE_MAX_BYTES} bytes")
        return lines


class FromDaemon:
    """The broker's reading end: messages, `Listen` and `Watch` with their descriptors."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._lines = Lines()
        self._descriptors: list[int] = []

    def read(self) -> list[tuple[ToBroker, int | None]] | None:
        """What has arrived; None at the end. A descriptor arrives no later than its message."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._channel, READ_BYTES, DESCRIPTORS_MAX)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        self._descriptors += descriptors
        return [self._with_descriptor(_to_broker.decode(line)) for line in self._lines.feed(data)]

    def _with_descriptor(self, message: ToBroker) -> tuple[ToBroker, int | None]:
        has_one = isinstance(message, Listen | Watch)
        return message, self._descriptors.pop(0) if has_one else None


class HasDescriptor(Protocol):
    def fileno(self) -> int: ...


def send(channel: socket.socket, message: ToBroker, beside: HasDescriptor | None = None) -> None:
    """The daemon's writing end; blocks. `beside` travels with `Listen` and `Watch`.

    Raises:
        OSError: the broker has ended.
    """
    data = memoryview(encoded(message))
    if beside is not None:
        data = data[socket.send_fds(channel, [data], [beside.fileno()]) :]
    channel.sendall(data)


class FromBrokerReader:
    """The daemon's reading end; blocks."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._lines = Lines()

    def read(self) -> list[FromBroker] | None:
        """The next messages; None at the end."""
        try:
            data = self._channel.recv(READ_BYTES)
        except OSError:
            return None
        return [_from_broker.decode(line) for line in self._lines.feed(data)] if data else None
