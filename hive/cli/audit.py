"""`hive audit verify|replay|why|export`: reads the log files; needs no daemon."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hive.audit.reading import log_reader, lower_priority
from hive.cli import events, screen
from hive.cli.screen import Styled
from hive.cli.session import Noun, Session, agent_names
from hive.errors import BadRequest, CorruptState, NotFound, Unavailable

if TYPE_CHECKING:
    from hive.audit.anchor_check import AnchorComparison
    from hive.audit.system_journal import SystemJournal

noun = Noun("Audit", group="audit", help="Verify, replay and explain the log; works without a daemon and on a copy.")


@noun.command("verify", example="hive audit verify")
def verify(
    hive: Session,
    journal: Annotated[
        bool | None,
        typer.Option("--journal/--no-journal", help="Compare with the system journal. Default: if the host has one."),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option("--journal-namespace", metavar="NS", help="The LogNamespace of the daemon's unit."),
    ] = None,
) -> None:
    """Verify the hash chain and name the first bad event."""
    from hive.audit.chain import verify_log

    lower_priority(hive.paths)
    with screen.progress("Verifying", _events(hive)) as tell:
        result = verify_log(hive.paths, tell, _journal(journal, namespace))
    if hive.as_json:
        screen.print_json(result)
    else:
        if result.ok:
            screen.say(f"Verified {result.events} events. Head hash: {result.head}")
        for erasure in result.erasures:
            who = f"event {erasure.seq}, by {erasure.by} on {erasure.at}"
            screen.say(f"{erasure.rows} of them are erased ({who}): {erasure.why}")
        for comparison in result.anchors:
            screen.line(*_comparison(comparison))
    if not result.ok:
        where = f"Event {result.bad_seq} {result.why}" if result.bad_seq is not None else f"The log: {result.why}"
        raise CorruptState(
            f"{where}. {result.events} events before it are valid. Compare with a backup; hive does not repair a log."
        )
    refused = [one for one in result.anchors if journal and one.state == "unreadable" and one.where == "system journal"]
    if refused:
        raise Unavailable(f"The log is valid, but the system journal cannot be read: {refused[0].note}.")


def _journal(asked: bool | None, namespace: str | None) -> "SystemJournal | None":
    from hive.audit.system_journal import SystemJournal

    journal = SystemJournal(namespace)
    wanted = namespace is not None or journal.is_there() if asked is None else asked
    return journal if wanted else None


def _comparison(comparison: "AnchorComparison") -> tuple[screen.Cell, ...]:
    colour = {"agrees": "green", "contradicts": "red"}.get(comparison.state, "yellow")
    upto = f" up to event {comparison.seq}" if comparison.seq is not None else ""
    note = f" ({comparison.note})" if comparison.note else ""
    return (f"{comparison.where}: ", Styled(comparison.state, colour), f"{upto}{note}")


@noun.command("replay", example="hive audit replay --until 2026-01-31T09:30:00Z --agent coder")
def replay(
    hive: Session,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="SEQ|TIME", help="Position of an event, or a time. Default: the newest event."),
    ] = None,
    agent: Annotated[
        str | None, typer.Option("--agent", metavar="A", help="Only this agent.", autocompletion=agent_names)
    ] = None,
) -> None:
    """Show the state as of an event or a time."""
    from hive.audit.replay import as_data, position, state_at
    from hive.cli import as_of

    lower_priority(hive.paths)
    with log_reader(hive.paths) as reader:
        try:
            seq = position(reader, until)
        except BadRequest as error:
            raise typer.BadParameter(str(error)) from None
        with screen.progress("Replaying", seq) as tell:
            state = state_at(reader, seq, tell)
        at = next((row.at for row in reader.rows(seq, seq)), None)
    data = as_data(state, agent)
    if agent is not None and not any(rows for tables in data.values() for rows in tables.values()):
        raise NotFound(f"Cannot tell: as of event {seq}, the log has no event about {agent}.")
    if hive.as_json:
        screen.print_json({"seq": seq, "at": at, "projections": data})
    else:
        screen.heading(f"As of event {seq}{f', {screen.when(at)}' if at else ''}")
        as_of.show(state, agent)


@noun.command("why", example="hive audit why question 7")
def why(
    hive: Session,
    subject: Annotated[
        Literal["agent", "message", "question", "approval"], typer.Argument(metavar="agent|message|question|approval")
    ],
    id: Annotated[str, typer.Argument(metavar="ID", help="The ID, or the agent's name.")],
) -> None:
    """List, in order, the events that explain something."""
    from hive.audit.why import explain

    lower_priority(hive.paths)
    with log_reader(hive.paths) as reader, screen.progress("Searching", None):
        found = explain(reader, subject, id)
    if hive.as_json:
        screen.print_json([events.as_data(row) for row in found.rows])
    for row in () if hive.as_json else found.rows:
        events.show(row)
    for gap in found.gaps:
        (screen.complain if hive.as_json else screen.say)(f"Cannot tell {gap}")


@noun.command("export", example="hive audit export --out hive-log.jsonl")
def export(
    hive: Session,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Write to this file instead of stdout; an existing file is replaced."
        ),
    ] = None,
) -> None:
    """Write every event as a JSON line, for `hive log import`."""
    from hive.audit.transfer import as_line
    from hive.audit.transfer import export as write
    from hive.cli.whole_file import replacing

    out = None if str(out) == "-" else out
    lower_priority(hive.paths)
    with log_reader(hive.paths) as reader:
        if out is None and sys.stdout.isatty():
            for row in reader.rows(1):  # print_json escapes control characters; an import accepts that, too.
                screen.print_json(as_line(row), one_line=True)
            return
        with screen.progress("Exporting", reader.head().seq) as tell:
            if out is None:
                write(reader, sys.stdout.buffer, tell)
                return
            with replacing(out) as file:
                head = write(reader, file, tell)
    found = {"events": head.seq, "head": head.hash.hex(), "file": str(out)}
    hive.done(found, f"Wrote {head.seq} events to {out}. Head hash: {head.hash.hex()}")


def _events(hive: Session) -> int | None:
    """The number of events, for the progress bar; None if the log cannot be read."""
    try:
        with log_reader(hive.paths) as reader:
            return reader.head().seq
    except CorruptState:
        return None
