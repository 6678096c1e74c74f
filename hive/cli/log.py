"""`hive log`: the events themselves, read from the file with or without a daemon; and a log made of exported ones."""

import difflib
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from hive import lock
from hive.audit.reading import log_reader
from hive.cli import events, screen
from hive.cli.session import Noun, Session, agent_names
from hive.clock import SystemClock
from hive.errors import CorruptState
from hive.events import EVENT_TYPES
from hive.events.base import Seq
from hive.events.log import GENESIS, Head, LogReader, Row
from hive.paths import Paths

noun = Noun("Audit", group="log")

NEWEST_SHOWN = 50
LIMIT_MAX = 2**63 - 1
PAGE_ROWS = 1_000
FOLLOW_STEP_S = 0.2
"""Between two looks at a log that is followed."""
DAEMON_RUNS = "A daemon runs on this log."
DAEMON_ENDED = "The daemon has ended; what the next one writes is shown, too. Ctrl-C ends this."


def _event_types(incomplete: str) -> list[str]:
    return [name for name in EVENT_TYPES if name.startswith(incomplete)]


@noun.alone(example="hive log --follow --type MessageSent --agent coder")
def log(
    hive: Session,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as events are written.")] = False,
    types: Annotated[
        list[str] | None, typer.Option("--type", "-t", metavar="T", help="Repeatable.", autocompletion=_event_types)
    ] = None,
    agent: Annotated[
        str | None, typer.Option("--agent", metavar="A", help="By or about it.", autocompletion=agent_names)
    ] = None,
    first: Annotated[int | None, typer.Option("--from", metavar="SEQ", help="Begin at this position.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", metavar="N", help="At most so many events.")] = None,
) -> None:
    """Print events, oldest first: the newest 50 unless told."""
    wanted = _Wanted(_known(types), agent)
    if (first or 0) < 0 or not 0 <= (limit or 0) <= LIMIT_MAX:
        raise typer.BadParameter("A position or a limit is not negative, and a limit fits 64 bits.")
    rows = _followed(hive.paths, wanted, first, limit) if follow else _past(hive.paths, wanted, first, limit)
    for row in rows:
        if hive.as_json:
            screen.print_json(events.as_data(row), one_line=True)
        else:
            events.show(row)


class _Wanted:
    """Which events are asked for."""

    def __init__(self, types: tuple[str, ...], agent: str | None):
        self.types = types
        self.agent = agent

    def newest(self, reader: LogReader, limit: int) -> list[Row]:
        return reader.newest(limit, self.types, self.agent)

    def from_on(self, reader: LogReader, first: Seq, limit: int | None) -> Iterator[Row]:
        """Page by page: a reader that stands still must not hold back the daemon's checkpoints."""
        while limit is None or limit > 0:
            page = reader.matching(first, min(PAGE_ROWS, limit or PAGE_ROWS), self.types, self.agent)
            yield from page
            if len(page) < PAGE_ROWS:
                return
            first = page[-1].seq + 1
            limit = None if limit is None else limit - len(page)


def _past(paths: Paths, wanted: _Wanted, first: Seq | None, limit: int | None) -> Iterator[Row]:
    with log_reader(paths) as reader:
        if first is None:
            yield from wanted.newest(reader, NEWEST_SHOWN if limit is None else limit)
        else:
            yield from wanted.from_on(reader, min(first, reader.head().seq), limit)


def _followed(paths: Paths, wanted: _Wanted, first: Seq | None, limit: int | None) -> Iterator[Row]:
    had_daemon = lock.is_held(paths.lock)  # Before anything is shown: who has seen it may start one.
    with log_reader(paths) as reader:
        end = reader.head()
        past = wanted.newest(reader, NEWEST_SHOWN if limit is None else limit) if first is None else None
        yield from (row for row in past or () if row.seq <= end.seq)
    next_seq = end.seq + 1 if first is None else min(first, end.seq)
    while True:
        # Opened anew for as long as the daemon stays or stays away: without one, the file is read as if frozen.
        daemon_runs = lock.is_held(paths.lock)
        if daemon_runs != had_daemon:
            had_daemon = daemon_runs
            screen.complain(f"hive: {DAEMON_RUNS if daemon_runs else DAEMON_ENDED}")
        with log_reader(paths) as reader:
            _refuse_other(reader, end)
            while True:
                end = reader.head()
                for row in wanted.from_on(reader, next_seq, None):
                    next_seq = row.seq + 1
                    yield row
                next_seq = max(next_seq, end.seq + 1)
                time.sleep(FOLLOW_STEP_S)
                if not daemon_runs or not lock.is_held(paths.lock):
                    break


def _refuse_other(reader: LogReader, end: Head) -> None:
    """A log that was exchanged under the follower would go on with events that follow nothing it has shown."""
    if (reader.hash_at(end.seq) or GENESIS) != end.hash:
        raise CorruptState(
            f"This is not the log that was followed: its event {end.seq} is gone or another. See `hive audit verify`."
        )


@noun.command("import", example="hive log import hive-log.jsonl --state ~/hive-copy")
def import_(
    hive: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Of `hive audit export`; - is stdin.")],
    head: Annotated[
        str | None, typer.Option("--head", metavar="HASH", help="That it must end with, as `hive audit verify` says.")
    ] = None,
) -> None:
    """Make the log of an empty state folder from exported lines."""
    from hive.audit.transfer import import_log

    with sys.stdin.buffer if str(file) == "-" else file.open("rb") as lines:
        info = os.fstat(lines.fileno())
        with screen.progress("Importing", info.st_size if stat.S_ISREG(info.st_mode) else None) as tell:
            end = import_log(hive.paths, lines, SystemClock().now_ms(), tell, head)
    found = {"events": end.seq, "head": end.hash.hex()}
    hive.done(found, f"{end.seq} events are in {hive.paths.events}. The chain ends with {end.hash.hex()}")


def _known(types: list[str] | None) -> tuple[str, ...]:
    for name in types or ():
        if name not in EVENT_TYPES:
            by_lower = {known.lower(): known for known in EVENT_TYPES}
            near = difflib.get_close_matches(name.lower(), by_lower, n=1)
            guess = f" Did you mean {by_lower[near[0]]}?" if near else ""
            raise typer.BadParameter(f"There is no event type {name!r}.{guess}")
    return tuple(types or ())
