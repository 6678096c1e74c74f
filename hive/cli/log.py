"""`hive log`: prints events from the log file, with or without a daemon, and imports exported events."""

import difflib
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
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
from hive.sockets.client import HostClient

noun = Noun("Audit", group="log")

NEWEST_SHOWN = 50
LIMIT_MAX = 2**63 - 1
PAGE_ROWS = 1_000
FOLLOW_STEP_S = 0.2
"""Poll interval of `--follow`."""
DAEMON_RUNS = "A daemon is running on this log."
DAEMON_ENDED = "The daemon has stopped; events of the next one will be shown. Press Ctrl-C to exit."


def _event_types(incomplete: str) -> list[str]:
    return [name for name in EVENT_TYPES if name.startswith(incomplete)]


@noun.alone(example="hive log --follow --type MessageSent --agent coder")
def log(
    hive: Session,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print new events as they appear.")] = False,
    types: Annotated[
        list[str] | None,
        typer.Option("--type", "-t", metavar="T", help="Event type; repeatable.", autocompletion=_event_types),
    ] = None,
    agent: Annotated[
        str | None,
        typer.Option("--agent", metavar="A", help="Events by or about this agent.", autocompletion=agent_names),
    ] = None,
    first: Annotated[int | None, typer.Option("--from", metavar="SEQ", help="Start at this position.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", metavar="N", help="Maximum number of events.")] = None,
) -> None:
    """Print events, oldest first. Default: the newest 50."""
    wanted = _Wanted(_known(types), agent)
    if (first or 0) < 0 or not 0 <= (limit or 0) <= LIMIT_MAX:
        raise typer.BadParameter("--from and --limit must not be negative, and --limit must fit 64 bits.")
    rows = _followed(hive.paths, wanted, first, limit) if follow else _past(hive.paths, wanted, first, limit)
    for row in rows:
        if hive.as_json:
            screen.print_json(events.as_data(row), one_line=True)
        else:
            events.show(row)


class _Wanted:
    """The filter of the command line."""

    def __init__(self, types: tuple[str, ...], agent: str | None):
        self.types = types
        self.agent = agent

    def newest(self, reader: LogReader, limit: int) -> list[Row]:
        return reader.newest(limit, self.types, self.agent)

    def from_on(self, reader: LogReader, first: Seq, limit: int | None) -> Iterator[Row]:
        """Read page by page, because an idle reader would block the daemon's checkpoints."""
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
    had_daemon = lock.is_held(paths.lock)  # Before the first output, because a reader of it may start a daemon.
    with log_reader(paths) as reader:
        end = reader.head()
        past = wanted.newest(reader, NEWEST_SHOWN if limit is None else limit) if first is None else None
        yield from (row for row in past or () if row.seq <= end.seq)
    next_seq = end.seq + 1 if first is None else min(first, end.seq)
    while True:
        # Reopen when a daemon starts or stops: without a daemon, the file is opened as immutable.
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
    """Refuse to continue on a replaced log, whose events do not follow those already printed."""
    if (reader.hash_at(end.seq) or GENESIS) != end.hash:
        raise CorruptState(f"The log was replaced: event {end.seq} is missing or different. Run `hive audit verify`.")


@noun.command("import", example="hive log import hive-log.jsonl --state ~/hive-copy")
def import_(
    hive: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Output of `hive audit export`; - reads stdin.")],
    head: Annotated[
        str | None, typer.Option("--head", metavar="HASH", help="Expected head hash, as `hive audit verify` prints it.")
    ] = None,
) -> None:
    """Create the log of an empty state folder from exported events."""
    from hive.audit.transfer import import_log

    with sys.stdin.buffer if str(file) == "-" else file.open("rb") as lines:
        info = os.fstat(lines.fileno())
        with screen.progress("Importing", info.st_size if stat.S_ISREG(info.st_mode) else None) as tell:
            end = import_log(hive.paths, lines, SystemClock().now_ms(), tell, head)
    found = {"events": end.seq, "head": end.hash.hex()}
    hive.done(found, f"Imported {end.seq} events into {hive.paths.events}. Head hash: {end.hash.hex()}")


@noun.command("archive", example="hive log archive --older-than 30d")
def archive(
    hive: Session,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Move events older than this: 30d, 12h.")
    ] = "30d",
) -> None:
    """Move old events into compressed files that are still read."""
    from hive.cli.erase import LONG_S, before

    at = before(older_than)
    if lock.is_held(hive.paths.lock):
        with HostClient(hive.paths.host_socket, reply_timeout_s=LONG_S) as client:
            done = client.ask("archive_log", before=at)
    else:
        done = _archive_offline(hive.paths, at)
    text = (
        f"{done['events']} events are in {done['segments']} new files ({done['bytes']} bytes) in {hive.paths.archive}."
    )
    hive.done({key: value for key, value in done.items() if key not in ("ok", "version")}, text)


def _archive_offline(paths: Paths, before: str) -> dict[str, Any]:
    from hive.audit.anchor_check import refuse_truncated
    from hive.audit.archiving import archive as move
    from hive.events.segments import give_to_owner

    with log_reader(paths) as reader:
        events = reader.head().seq
    with lock.held(paths.lock), screen.progress("Archiving", events) as tell:
        give_to_owner(paths.lock, paths.events)
        refuse_truncated(paths)
        done: dict[str, Any] = msgspec.to_builtins(move(paths, before, tell, shrink=True))
    return done


def _known(types: list[str] | None) -> tuple[str, ...]:
    for name in types or ():
        if name not in EVENT_TYPES:
            by_lower = {known.lower(): known for known in EVENT_TYPES}
            near = difflib.get_close_matches(name.lower(), by_lower, n=1)
            guess = f" Did you mean {by_lower[near[0]]}?" if near else ""
            raise typer.BadParameter(f"There is no event type {name!r}.{guess}")
    return tuple(types or ())
