"""The hot loop: pages of the log, decoded and folded. Used by the store, by a rebuild and by every audit."""

import gc
from collections.abc import Callable, Iterable, Mapping

import msgspec

from hive.events import EVENT_TYPES
from hive.events.base import Seq
from hive.events.codec import Codec
from hive.events.log import Entry, stamped_ms
from hive.projections.hive import Handler, Hive, dispatch
from hive.projections.table import Recorded

Tell = Callable[[Seq], None]
"""Is told the position reached, a page at a time."""


def replay(hive: Hive, pages: Iterable[list[Entry]], codec: Codec, tell: Tell = lambda _: None) -> None:
    """Fold more of the log into every projection.

    Raises:
        CorruptState: an event that this hive does not know or cannot read.
    """
    hive.seq = max(hive.seq, replay_into(dispatch(hive.projections()), pages, codec, tell))


def replay_into(
    handlers: Mapping[type, tuple[Handler, ...]],
    pages: Iterable[list[Entry]],
    codec: Codec,
    tell: Tell = lambda _: None,
) -> Seq:
    """The same for some projections; returns the newest position. One dict lookup, no method of ours an event."""
    plans = {name: (codec.decoder(name), handlers.get(cls, ())) for name, cls in EVENT_TYPES.items()}
    gc_was_on = gc.isenabled()
    gc.disable()  # A fold makes many rows and no garbage; the collector would walk them all again and again.
    seq, name, data = 0, "", ""
    try:
        for page in pages:
            for seq, at, name, data, by in page:
                decode, folds = plans[name]
                event = decode(data)
                recorded = Recorded(seq, stamped_ms(at), event, by)
                for fold in folds:
                    fold(event, recorded)
            tell(seq)
    except (KeyError, msgspec.DecodeError):
        codec.decode(name, data)  # Says what is wrong with it; or it is sound, and a fold has a bug.
        raise
    finally:
        if gc_was_on:
            gc.enable()
    return seq
