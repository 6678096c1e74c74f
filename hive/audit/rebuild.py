"""Every projection folded anew into a fresh file. A process of its own when a daemon asks for it."""

import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import Final

from hive import lock
from hive.audit.reading import Tell, refusing_damage
from hive.audit.witnesses import refuse_cut
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
"""Events that the daemon folds itself when it takes the file over; more are caught up here first."""
CATCH_UPS_MAX: Final = 20
"""Where a daemon appends faster than this folds, it will have to fold the more."""
NICENESS: Final = 10
"""Whoever waits for an append comes first."""


def rebuild(paths: Paths, tell: Tell) -> Seq:
    """Drop every projection and fold the log again, in the daemon's place. Returns the position reached.

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
        refuse_cut(paths)  # What the old file has seen of the log is gone after this.
        seq = fold_beside(paths, tell, daemon_runs=False)
        try:
            put_in_place(paths.state)
        except OSError as error:
            raise Unavailable(f"{paths.projections} cannot be written: {error}.") from error
    return seq


def fold_beside(paths: Paths, tell: Tell, *, daemon_runs: bool) -> Seq:
    """Write a fresh file from the log alone; a daemon may run and append meanwhile.

    Raises:
        CorruptState: the log is damaged. Unavailable: there is none, or the disk refuses.
    """
    hive, codec = Hive(), Codec()
    with refusing_damage(paths.events), contextlib.closing(LogReader(paths.state, daemon_runs=daemon_runs)) as reader:
        # Beside a daemon one thread is enough: a second would take the processor that its journal needs.
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
    assert found is not None, "what was folded is in the log"
    return found


def _give_to_owner(paths: Paths, path: Path) -> None:
    """A rebuild by root must not leave a file that the daemon's own user cannot write."""
    owner = paths.events.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.chown(path, owner.st_uid, owner.st_gid)


def main() -> int:
    """`python -m hive.audit.rebuild STATE`, for a daemon: positions on stdout, on stderr what is wrong.

    It ends when its stdin does, so that none of a daemon that was killed writes beside one of the next daemon.
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
