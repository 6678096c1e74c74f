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


class SignedIn(Event, frozen=True, kw_only=True):
    """A dashboard session began."""

    name: str
    source: str
    """The address that the dashboard saw, with the uid of a local user."""
    link: bool = False
    """With a login link instead of a token."""


class SignInRefused(Event, frozen=True, kw_only=True):
    """Wrong tokens at the dashboard. Written at most once a minute, so that nobody can fill the log with them."""

    source: str
    """The address of the newest attempt."""
    attempts: int = 1
    """Refused attempts since the event before."""
