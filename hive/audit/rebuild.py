"""Rebuilds all projections into a new file. Runs as a separate process when the daemon asks for it."""

import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import Final

from hive import lock
from hive.audit.anchor_check import refuse_truncated
from hive.audit.reading import Tell, translating_sqlite_errors
from hive.errors import HiveError, Unavailable
from hive.events.base import Seq
from hive.events.codec import Codec
from hive.events.log import LogReader
from hive.events.pages import read_ahead
from hive.paths import Paths
from hive.projections.fresh import FreshFile, put_in_place
from hive.projections.hive import Hive
from hive.projections.replay import replay

NEAR_ENOUGH: Final = 5_000
"""The daemon folds up to this many events when it takes the file over; more are folded here first."""
CATCH_UPS_MAX: Final = 20
"""If the daemon appends faster than this process folds, the daemon folds the rest."""
NICENESS: Final = 10
"""Appends have priority."""


def rebuild(paths: Paths, tell: Tell) -> Seq:
    """Drop every projection and fold the log again while no daemon runs. Returns the position reached.

    Raises:
        CorruptState: a daemon runs (ask it instead), or the log is damaged or was cut.
        Unavailable: there is no log, or the disk refuses.
    """
    if not paths.events.exists():
        raise Unavailable(
            f"There is no {paths.events.name} in {paths.state}; give the hive's state folder with --state."
        )
    with lock.held(paths.lock):
        _give_to_owner(paths, paths.lock)
        refuse_truncated(paths)  # The old file's position is lost after this.
        seq = fold_beside(paths, tell, daemon_runs=False)
        try:
            put_in_place(paths.state)
        except OSError as error:
            raise Unavailable(f"{paths.projections} cannot be written: {error}.") from error
    return seq


def fold_beside(paths: Paths, tell: Tell, *, daemon_runs: bool) -> Seq:
    """Write a new file from the log alone; a daemon may append meanwhile.

    Raises:
        CorruptState: the log is damaged. Unavailable: there is none, or the disk refuses.
    """
    hive, codec = Hive(), Codec()
    with (
        translating_sqlite_errors(paths.events),
        contextlib.closing(LogReader(paths.state, daemon_runs=daemon_runs)) as reader,
    ):
        # Beside a daemon use one thread: a second one would take processor time from its journal.
        with contextlib.nullcontext(reader.pages(1)) if daemon_runs else read_ahead(reader.pages(1)) as pages:
            replay(hive, pages, codec, tell)
        with FreshFile(paths.state) as fresh:
            _give_to_owner(paths, fresh.path)
            fresh.fill(hive, _hash(reader, hive))
            for _ in range(CATCH_UPS_MAX):
                if reader.head().seq <= hive.seq + NEAR_ENOUGH:
                    break
                replay(hive, reader.pages(hive.seq + 1), codec, tell)
                fresh.catch_up(hive, _hash(reader, hive))
    return hive.seq


def _hash(reader: LogReader, hive: Hive) -> bytes:
    found = reader.hash_at(hive.seq)
    assert found is not None, "folded events are in the log"
    return found


def _give_to_owner(paths: Paths, path: Path) -> None:
    """A rebuild by root must not leave a file that the daemon's own user cannot write."""
    owner = paths.events.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.chown(path, owner.st_uid, owner.st_gid)


def main() -> int:
    """`python -m hive.audit.rebuild STATE`, for a daemon: positions on stdout, on stderr what is wrong.

    It exits when its stdin closes, so that a process of a killed daemon does not write beside the next daemon's.
    """
    os.nice(NICENESS)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    state = Path(sys.argv[1])
    try:
        fold_beside(Paths(state, state), _say, daemon_runs=True)
    except HiveError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _end_with_stdin() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def _say(seq: Seq) -> None:
    print(seq, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
