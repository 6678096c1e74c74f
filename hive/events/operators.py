"""Facts about the people who may decide. Written by the operator deciders; read by the operators projection."""

from hive.events.base import Event


class OperatorAdded(Event, frozen=True, kw_only=True):
    """A named token exists; only its hash is kept."""

    name: str
    token_hash: str
    """SHA-256 of the token, hex; the token itself has 256 random bits, so it needs no salt."""


class OperatorRevoked(Event, frozen=True, kw_only=True):
    """The token no longer opens anything."""

    name: str
