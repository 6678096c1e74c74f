"""The columns of a turn and of metered model use. What stores, sends, sums or shows them derives them from here."""

from operator import attrgetter
from typing import Annotated, Any, Final, Self, get_type_hints

import msgspec


class TokenKind(msgspec.Struct, frozen=True):
    """What differs between the token columns."""

    title: str
    """Head of its column in a table."""
    name: str
    """In a sentence."""
    usage: str
    """Its key in the usage that Claude Code reports."""
    price: str
    """The field of `Price` that applies."""
    is_cache: bool = False


class TokenCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Token counts of each kind."""

    input_tokens: Annotated[int, TokenKind("In", "input tokens", "input_tokens", "input")] = 0
    output_tokens: Annotated[int, TokenKind("Out", "output tokens", "output_tokens", "output")] = 0
    cache_read_tokens: Annotated[
        int, TokenKind("Cached", "tokens read from the cache", "cache_read_input_tokens", "cache_read", is_cache=True)
    ] = 0
    cache_creation_tokens: Annotated[
        int,
        TokenKind("Stored", "tokens written to the cache", "cache_creation_input_tokens", "cache_write", is_cache=True),
    ] = 0

    def __add__(self, other: "TokenCounts") -> "TokenCounts":
        return TokenCounts(**{name: getattr(self, name) + getattr(other, name) for name in TOKEN_COLUMNS})

    @property
    def total(self) -> int:
        return sum(_counts(self))

    @property
    def without_cache(self) -> int:
        """What the screens show as one figure."""
        return sum(getattr(self, name) for name in WITHOUT_CACHE)


TOKEN_COLUMNS: Final = TokenCounts.__struct_fields__
TOKEN_KINDS: Final[dict[str, TokenKind]] = {
    name: get_type_hints(TokenCounts, include_extras=True)[name].__metadata__[0] for name in TOKEN_COLUMNS
}
"""By column."""
WITHOUT_CACHE: Final = tuple(name for name, kind in TOKEN_KINDS.items() if not kind.is_cache)
_counts = attrgetter(*TOKEN_COLUMNS)


class TurnColumns(msgspec.Struct, kw_only=True):
    """One turn as the harness reports it. Unknown is None, never 0. Mutable, because the harness fills it in."""

    model: str | None = None
    wake_from: str | None = None
    """Sender of the first message in the batch."""
    result_kind: str | None = None
    """`ok`, `failed`, `prompt_too_long`, `budget`."""
    started_at: str | None = None
    """RFC 3339."""
    ended_at: str | None = None
    duration_ms: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_creation_tokens: int | None = None
    tool_call_count: int | None = None
    tool_calls_json: str | None = None
    """`{"Read": 2, "Bash": 1}` as JSON text."""
    open_threads_count: int | None = None
    open_reminders_count: int | None = None
    note: str | None = None
    """The error of a failed turn."""


class ReportedTokens(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over reported turns. None if no turn reported the figure."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_creation_tokens: int | None = None


class MeteredUse(TokenCounts, frozen=True, kw_only=True):
    """Model requests as the broker counted them."""

    requests: int = 0
    """Every request that got an answer, including failed ones."""
    errors: int = 0
    """Requests that the provider answered with an error."""

    def plus(self, other: "MeteredUse") -> Self:
        """With the counts of the other; what a subclass adds is kept."""
        return msgspec.structs.replace(self, **{name: getattr(self, name) + getattr(other, name) for name in METERED})


METERED: Final = MeteredUse.__struct_fields__


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """Dollars per million tokens of each kind; None is unknown."""

    input: float | None = None
    output: float | None = None
    cache_read: float | None = None
    cache_write: float | None = None


def token_counts(columns: Any) -> TokenCounts:
    """The counts of anything that has the token columns; unknown is 0."""
    return TokenCounts(**{name: getattr(columns, name) or 0 for name in TOKEN_COLUMNS})
