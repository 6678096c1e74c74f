"""Backups of the whole state: `hive backup`, `hive restore`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hive.cli import screen
from hive.cli.session import Noun, Session

if TYPE_CHECKING:
    from hive.backup.manifest import LeftOut

noun = Noun("Audit")

KEPT = 10
"""Backups in one folder, unless told otherwise."""


@noun.command("backup", example="hive backup /mnt/backup/hive")
def backup(
    hive: Session,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where backups of this hive are kept.")],
    keep: Annotated[int, typer.Option("--keep", metavar="N", min=1, help="Keep the newest N backups.")] = KEPT,
) -> None:
    """Back up the state folder, beside a running daemon too."""
    from hive.backup.writing import write_backup
    from hive.clock import SystemClock

    with _progress("Backing up") as tell:
        written = write_backup(hive.paths, folder, SystemClock(), tell, keep=keep)
    if hive.as_json:
        screen.print_json(written)
        return
    screen.say(
        f"Backed up {written.files} files and the log up to event {written.seq} to {written.folder}: "
        f"{written.new_chunks} new pieces. Its name is {written.backup}."
    )
    _say_left_out(written.left_out)


@noun.command("restore", example="hive restore /mnt/backup/hive --state ./restored")
def restore(
    hive: Session,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where `hive backup` wrote to.")],
    name: Annotated[
        str | None, typer.Option("--backup", metavar="NAME", help="A backup by its name or the start of it.")
    ] = None,
) -> None:
    """Write the newest backup of a folder as a new state folder."""
    from hive.backup.restoring import restore_backup

    with _progress("Restoring") as tell:
        restored = restore_backup(folder, hive.paths.state, tell, name=name)
    if hive.as_json:
        screen.print_json(restored)
        return
    screen.say(
        f"Restored {restored.files} files and the log up to event {restored.seq}, as of {restored.at}, "
        f"to {restored.state}. Start it with: hive up --state {restored.state}"
    )
    _say_left_out(restored.left_out)


@contextmanager
def _progress(label: str) -> Iterator[Callable[[str], None]]:
    with screen.progress(label, None) as count:
        done = 0

        def tell(_what: str) -> None:
            nonlocal done
            done += 1
            count(done)

        yield tell


def _say_left_out(left_out: "Sequence[LeftOut]") -> None:
    if left_out:
        screen.say("Left out:")
        screen.table(("name", "why"), [(one.path, one.why) for one in left_out])
