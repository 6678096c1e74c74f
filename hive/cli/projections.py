"""`hive projections status|check|rebuild`. A rebuild goes through the daemon if one is running."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from hive import lock
from hive.audit.reading import log_reader
from hive.cli import screen
from hive.cli.screen import Cell, Column, Styled
from hive.cli.session import Noun, Session
from hive.errors import CorruptState
from hive.sockets.client import Reply, Unreachable

if TYPE_CHECKING:
    from hive.audit.check import Position

noun = Noun("Audit", group="projections", help="Check and rebuild the read models of the log.")

DIGEST_SHOWN = 16


@noun.command("status", example="hive projections status")
def status(hive: Session) -> None:
    """Show the position and digest of each projection."""
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
        raise CorruptState(f"Projections differ from the log: {', '.join(bad)}. Run `hive projections rebuild`.")


@noun.command("rebuild", example="hive projections rebuild")
def rebuild(hive: Session) -> None:
    """Drop every projection and rebuild it from the log."""
    from hive.audit.rebuild import rebuild as fold_again

    with screen.progress("Rebuilding", _head(hive)) as tell:
        if lock.is_held(hive.paths.lock):
            reply, text = _by_the_daemon(hive, tell), "The daemon has rebuilt its projections."
        else:
            seq = fold_again(hive.paths, tell)
            reply, text = {"seq": seq}, f"Rebuilt every projection up to event {seq}."
    hive.done(reply, text)


def _by_the_daemon(hive: Session, tell: Callable[[int], None]) -> Reply:
    for reply in hive.follow("rebuild_projections", progress=True):
        if "position" not in reply:
            return reply
        tell(reply["position"])
    raise Unreachable("The daemon stopped before the rebuild was done. The next start has valid projections.")


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
