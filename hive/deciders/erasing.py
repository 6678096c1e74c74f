"""Rules for erasing texts: only an operator decides, and says why. Outside the journal the rows are then changed."""

from hive.clock import TimeMs
from hive.deciders.base import Command, Decision, checked_label, checked_text
from hive.errors import NotFound, NotYours
from hive.events.base import Seq
from hive.events.erasing import Erased, ErasureFinished
from hive.projections.hive import Hive


class Erase(Command, frozen=True, kw_only=True):
    """`erased` names rows and ids; the caller has searched the log for them."""

    erased: Erased


class FinishErasure(Command, frozen=True, kw_only=True):
    """No file of the state holds the texts any more."""

    of: Seq
    rows: int


def erase(command: Erase, _hive: Hive, _: TimeMs) -> Decision:
    """Record what is erased, and why, before anything is changed.

    Raises:
        NotYours: not an operator. BadRequest: no reason. NotFound: no row has such a text.
    """
    erased = command.erased
    if command.by.kind != "operator":
        raise NotYours("Only an operator can erase.")
    checked_label(checked_text(erased.why, "reason"), "reason")
    if not erased.rows and not erased.backups:  # What was erased before may still be in backups.
        raise NotFound(f"The log holds no text of {erased.subject.replace('_', ' ')} {erased.name}.")
    return [erased]


def finish_erasure(command: FinishErasure, hive: Hive, _: TimeMs) -> Decision:
    """Record the end of an erasure. A no-op if it is already recorded."""
    if command.of not in hive.erasures.pending:
        return []
    return [ErasureFinished(of=command.of, rows=command.rows)]
