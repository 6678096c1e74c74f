"""The read models: `hive projections status|check|rebuild`. A rebuild asks the daemon where one runs."""

from typing import TYPE_CHECKING

from hive import lock
from hive.audit.reading import log_reader
from hive.cli import screen
from hive.cli.screen import Cell, Column, Styled
from hive.cli.session import Noun, Session
from hive.errors import CorruptState

if TYPE_CHECKING:
    from hive.audit.check import Position

noun = Noun("Audit", group="projections", help="The read models folded from the log; disposable.")

DIGEST_SHOWN = 16


@noun.command("status", example="hive projections status")
def status(hive: Session) -> None:
    """Show the position and digest of every projection."""
    from hive.audit.check import positions

    _show(hive, positions(hive.paths))


@noun.command("check", example="hive projections check")
def check(hive: Session) -> None:
    """Replay the log and compare; exit 1 on any difference."""
    from hive.audit.check import check as compare

    with screen.progress("Replaying", _head(hive)) as tell:
        rows = compare(hive.paths, tell)
    _show(hive, rows)
    bad = [f"{row.projection} ({row.state})" for row in rows if not row.is_sound]
    if bad:
        raise CorruptState(f"Not as the log says: {', '.join(bad)}. Make them anew with `hive projections rebuild`.")


@noun.command("rebuild", example="hive projections rebuild")
def rebuild(hive: Session) -> None:
    """Drop every projection and fold the log again."""
    from hive.audit.check import rebuild as fold_again

    if lock.is_held(hive.paths.lock):
        reply = hive.ask("rebuild_projections")
        hive.done(reply, "The daemon has folded its projections again.")
        return
    with screen.progress("Folding", _head(hive)) as tell:
        seq = fold_again(hive.paths, tell)
    hive.done({"seq": seq}, f"Every projection is folded again, up to event {seq}.")


def _head(hive: Session) -> int:
    with log_reader(hive.paths) as reader:
        return reader.head().seq


def _show(hive: Session, rows: "list[Position]") -> None:
    if hive.as_json:
        screen.print_json(rows)
        return
    columns = (Column("Projection", whole=True), Column("Event", right=True), Column("Behind", right=True))
    screen.table((*columns, Column("Digest", whole=True), "State"), [_cells(row) for row in rows])


def _cells(row: "Position") -> list[Cell]:
    seq, behind = ("" if figure is None else str(figure) for figure in (row.seq, row.behind))
    state = Styled(row.state, "green" if row.is_sound else "red")
    return [row.projection, seq, behind, (row.digest or "")[:DIGEST_SHOWN], state]
