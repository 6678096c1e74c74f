"""`hive log`: the events themselves, read from the file with or without a daemon."""

import difflib
import time
from collections.abc import Iterator
from typing import Annotated

import typer

from hive import lock
from hive.audit.reading import log_reader
from hive.cli import events, screen
from hive.cli.session import Noun, Session, agent_names
from hive.events import EVENT_TYPES
from hive.events.base import Seq
from hive.events.log import LogReader, Row
from hive.paths import Paths

noun = Noun("Audit")

NEWEST_SHOWN = 50
PAGE_ROWS = 1_000
FOLLOW_STEP_S = 0.2
"""Between two looks at a log that is followed."""


def _event_types(incomplete: str) -> list[str]:
    return [name for name in EVENT_TYPES if name.startswith(incomplete)]


@noun.command("log", example="hive log --follow --type MessageSent --agent coder")
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
    if (first is not None and first < 0) or (limit is not None and limit < 0):
        raise typer.BadParameter("A position or a limit is not negative.")
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
    with log_reader(paths) as reader:
        head = reader.head().seq
        past = wanted.newest(reader, NEWEST_SHOWN if limit is None else limit) if first is None else None
        yield from (row for row in past or () if row.seq <= head)
    next_seq = head + 1 if first is None else min(first, head)
    while True:
        # Opened anew for as long as the daemon stays or stays away: without one, the file is read as if frozen.
        daemon_runs = lock.is_held(paths.lock)
        with log_reader(paths) as reader:
            while True:
                head = reader.head().seq
                for row in wanted.from_on(reader, next_seq, None):
                    next_seq = row.seq + 1
                    yield row
                next_seq = max(next_seq, head + 1)
                time.sleep(FOLLOW_STEP_S)
                if not daemon_runs or not lock.is_held(paths.lock):
                    break


def _known(types: list[str] | None) -> tuple[str, ...]:
    for name in types or ():
        if name not in EVENT_TYPES:
            by_lower = {known.lower(): known for known in EVENT_TYPES}
            near = difflib.get_close_matches(name.lower(), by_lower, n=1)
            guess = f" Did you mean {by_lower[near[0]]}?" if near else ""
            raise typer.BadParameter(f"There is no event type {name!r}.{guess}")
    return tuple(types or ())
