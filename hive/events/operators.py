"""Facts about operators. Written by the operator deciders; read by the operators projection."""

from hive.events.base import Event


class OperatorAdded(Event, frozen=True, kw_only=True):
    """An operator has a token; only its hash is stored."""

    name: str
    token_hash: str
    """SHA-256 of the token, hex; the token itself has 256 random bits, so it needs no salt."""


class OperatorRevoked(Event, frozen=True, kw_only=True):
    """The token is no longer valid."""

    name: str
