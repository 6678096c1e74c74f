"""Output to a terminal or a pipe: escaped text, tables, JSON, progress. Every command prints through this module."""

import functools
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from hive.clock import MS_PER_S, duration_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

PROGRESS_STEP = 1_000
"""Rows between two updates of a progress bar."""

_HARMFUL = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # Control characters but tab and line feed.
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # Invisible or bidirectional.
    "\ud800-\udfff\U000e0000-\U000e007f"  # Half a character; tags.
)
_IN_TEXT = re.compile(f"[{_HARMFUL}]")
_IN_CELL = re.compile(f"[{_HARMFUL}\t\n]")
_CELL_FORM = {"\n": " ⏎ ", "\t": " "}


class Styled(NamedTuple):
    """A cell's text with a rich style."""

    text: str
    style: str


Cell = str | Styled


class Column(NamedTuple):
    """A table column; `right` aligns figures to the right, `whole` disables wrapping."""

    title: str
    right: bool = False
    whole: bool = False


def visible(text: str) -> str:
    """One line with control and bidirectional characters escaped, so that agents cannot control the terminal."""
    return _IN_CELL.sub(lambda match: _CELL_FORM.get(match[0]) or _escape(match[0]), text)


def visible_lines(text: str) -> str:
    """Like `visible`, but keeps line feeds and tabs."""
    return _IN_TEXT.sub(lambda match: _escape(match[0]), text)


def json_text(value: object, *, indented: bool = False) -> str:
    """JSON in which control and bidirectional characters are escaped even where JSON does not require it."""
    encoded = msgspec.json.encode(value)
    text = (msgspec.json.format(encoded, indent=2) if indented else encoded).decode()
    return _IN_TEXT.sub(lambda match: _json_escape(match[0]), text)


def print_json(value: object, *, one_line: bool = False) -> None:
    """Print one JSON value; indented on a terminal unless `one_line`."""
    sys.stdout.write(json_text(value, indented=not one_line and sys.stdout.isatty()) + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """Print text to stdout."""
    sys.stdout.write(visible_lines(text) + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Print one line to stderr."""
    sys.stderr.write(visible(text) + "\n")
    sys.stderr.flush()


def say_each(texts: Iterable[str]) -> None:
    """Print many lines to stdout."""
    sys.stdout.writelines(visible_lines(text) + "\n" for text in texts)
    sys.stdout.flush()


def line(*parts: Cell) -> None:
    """Print one line of styled parts: truncated on a terminal, complete in a pipe."""
    if not sys.stdout.isatty():
        say("".join(visible(part.text if isinstance(part, Styled) else part) for part in parts))
        return
    from rich.text import Text

    text = Text.assemble(*(_text(part) for part in parts))
    console().print(text, no_wrap=True, overflow="ellipsis", crop=True)


def whole_line(*parts: Cell) -> None:
    """Print one line of styled parts that wraps on a terminal."""
    if not sys.stdout.isatty():
        line(*parts)
        return
    from rich.text import Text

    console().print(Text.assemble(*(_text(part) for part in parts)), soft_wrap=True)


def plain(value: object) -> str:
    """Text unchanged, any other value as JSON."""
    return value if isinstance(value, str) else json_text(value)


def heading(text: str) -> None:
    console().print(_text(Styled(text, "bold")))


def table(columns: Sequence[str | Column], rows: Iterable[Sequence[Cell]]) -> None:
    """Print a table that fits the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    shown = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold", padding=(0, 1))
    shown.show_header = any(column[0] if isinstance(column, Column) else column for column in columns)
    for column in columns:
        title, right, whole = column if isinstance(column, Column) else (column, False, False)
        shown.add_column(title, justify="right" if right else "left", no_wrap=right or whole, overflow="fold")
    for row in rows:
        shown.add_row(*map(_text, row))
    console().print(shown)


def listing(titles: Sequence[str], rows: Iterable[tuple[Sequence[Cell], str]]) -> None:
    """Print aligned rows, each followed by a text of any length, which would not fit into a column."""
    rows = list(rows)
    plain_rows = [[visible(cell.text if isinstance(cell, Styled) else cell) for cell in cells] for cells, _ in rows]
    widths = [max(map(len, column)) for column in zip(titles, *plain_rows, strict=True)]
    line(Styled("  ".join(title.ljust(width) for title, width in zip(titles, widths, strict=True)).rstrip(), "bold"))
    for (cells, below), texts in zip(rows, plain_rows, strict=True):
        padded = [f"{text:<{width}}  " for text, width in zip(texts, widths, strict=True)]
        padded[-1] = padded[-1].rstrip()
        styles = [cell.style if isinstance(cell, Styled) else "" for cell in cells]
        line(*map(Styled, padded, styles))
        if below:
            whole_line(Styled(f"    {below}", "dim"))


@contextmanager
def progress(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yield a function that reports progress; the bar appears on stderr and only on a terminal."""
    if not sys.stderr.isatty():
        yield lambda _done: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(errors=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, completed=done)


@functools.cache
def console(*, errors: bool = False) -> "Console":
    """A rich console without markup, emoji names and highlighting, because agents write some of the text."""
    from rich.console import Console

    return Console(stderr=errors, markup=False, emoji=False, highlight=False)


def when(at: Any) -> str:
    """Format an RFC 3339 time or Unix milliseconds as `2026-01-31 09:30:00Z`; empty for None."""
    if at is None:
        return ""
    if isinstance(at, int):
        return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    day, _, time = str(at).partition("T")
    return f"{day} {time.removesuffix('Z').partition('.')[0]}Z" if time else day


def duration(seconds: float) -> str:
    """`45s`, `2m 5s`, `1h 2m`, `3d 4h`."""
    return duration_text(int(seconds) * MS_PER_S)


def seconds_until(at: str) -> float:
    """Seconds until an RFC 3339 time; negative if it has passed."""
    return (datetime.fromisoformat(at) - datetime.now(UTC)).total_seconds()


def _text(cell: Cell) -> "Text":
    from rich.text import Text

    return Text(visible(cell.text), style=cell.style) if isinstance(cell, Styled) else Text(visible(cell))


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(char: str) -> str:
    code = ord(char)
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
