"""The replay loop: decodes pages of the log and folds them. Used by the store, rebuilds and audits."""

import functools
import gc
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from hive.errors import CorruptState
from hive.events.base import Event, Seq
from hive.events.codec import Codec
from hive.events.pages import Page
from hive.projections.hive import Handler, Hive, dispatch
from hive.projections.table import Recorded

Tell = Callable[[Seq], None]
"""Called with the position after each page."""


def replay(hive: Hive, pages: Iterable[Page], codec: Codec, tell: Tell = lambda _: None) -> None:
    """Fold pages of the log into every projection.

    Raises:
        CorruptState: an event that this hive does not know or cannot read, or that contradicts earlier events.
    """
    hive.seq = max(hive.seq, replay_into(dispatch(hive.projections()), pages, codec, tell))


def replay_into(
    handlers: Mapping[type, tuple[Handler, ...]], pages: Iterable[Page], codec: Codec, tell: Tell = lambda _: None
) -> Seq:
    """The same for some projections; returns the newest position. One dict lookup and one call per event."""
    fold = {cls: _as_one(handlers.get(cls, ())) for cls in codec.types.values()}
    seq = 0
    gc_was_on = gc.isenabled()
    gc.disable()  # A fold creates many rows and no cycles; the collector would scan them again and again.
    try:
        for page in pages:
            rows = decoded(page, codec)
            try:
                for recorded in rows:
                    event = recorded.event
                    fold[type(event)](event, recorded)
            except Exception as error:  # A fold trusts the log, so a contradiction can raise anything.
                raise _contradiction(recorded, error) from error
            seq = rows[-1].seq
            tell(seq)
    finally:
        if gc_was_on:
            gc.enable()
    return seq


def _contradiction(recorded: Recorded, error: Exception) -> CorruptState:
    return CorruptState(
        f"Event {recorded.seq} ({type(recorded.event).__name__}) contradicts earlier events, so the log cannot be "
        f"replayed ({type(error).__name__}: {error}). Restore the state folder from a backup."
    )


def decoded(page: Page, codec: Codec) -> list[Recorded]:
    """Every event of a page: one decoder call if all have version 1, otherwise one by one.

    Raises:
        CorruptState: as `Codec.decode`.
    """
    try:
        found = _decoder(frozenset(codec.types.values()))(page.text)
        if found[-1].seq - found[0].seq == len(found) - 1:  # Malformed data could look like two rows.
            return found
    except msgspec.DecodeError:
        pass
    return [Recorded(seq, at, by, codec.decode(type_, data)) for seq, at, by, type_, data in page.entries()]


@functools.cache
def _decoder(types: frozenset[type[Event]]) -> Callable[[str], list[Recorded]]:
    """A Recorded tagged with the type name for each type of version 1."""
    rows: Any = None
    for cls in types:
        if cls.version == 1:
            row = msgspec.defstruct(
                cls.__name__,
                [("event", cls)],
                bases=(Recorded,),
                tag=cls.__name__,
                forbid_unknown_fields=True,
                frozen=True,
                gc=False,
            )
            rows = row if rows is None else rows | row
    return msgspec.json.Decoder(list[rows]).decode


def _as_one(handlers: tuple[Handler, ...]) -> Handler:
    """One handler that calls all of them."""
    if len(handlers) == 1:
        return handlers[0]

    if len(handlers) == 2:
        first, second = handlers

        def both(event: Event, recorded: Recorded) -> None:
            first(event, recorded)
            second(event, recorded)

        return both

    def each(event: Event, recorded: Recorded) -> None:
        for handler in handlers:
            handler(event, recorded)

    return each
