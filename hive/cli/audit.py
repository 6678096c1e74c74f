"""What the log proves: `hive audit verify|replay|why`. Reads the files; needs no daemon."""

from typing import Annotated, Literal

import typer

from hive.audit.reading import log_reader
from hive.cli import events, screen
from hive.cli.agents import state_of
from hive.cli.screen import Cell, Column
from hive.cli.session import Noun, Session
from hive.errors import BadRequest, CorruptState
from hive.projections.agents import Agent
from hive.projections.hive import Hive

noun = Noun("Audit", group="audit", help="What the log proves; works without a daemon and on a copy.")


@noun.command("verify", example="hive audit verify")
def verify(hive: Session) -> None:
    """Walk the hash chain; name the first event that is wrong."""
    from hive.audit.chain import verify_log

    with screen.progress("Verifying", _events(hive)) as tell:
        verdict = verify_log(hive.paths, tell)
    if hive.as_json:
        screen.print_json(verdict)
    elif verdict.ok:
        screen.say(f"{verdict.events} events hold. The chain ends with {verdict.head}")
    if verdict.ok:
        return
    where = f"Event {verdict.bad_seq} {verdict.why}" if verdict.bad_seq is not None else f"The log: {verdict.why}"
    raise CorruptState(
        f"{where}. {verdict.events} events before it hold. Compare with a backup; hive does not repair it."
    )


@noun.command("replay", example="hive audit replay --until 2026-01-31T09:30:00Z")
def replay(
    hive: Session,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="SEQ|TIME", help="An event's position or a time; the head unless told."),
    ] = None,
) -> None:
    """Show the state as of an event or a time."""
    from hive.audit.replay import as_data, position, state_at

    with log_reader(hive.paths) as reader:
        try:
            seq = position(reader, until)
        except BadRequest as error:
            raise typer.BadParameter(str(error)) from None
        with screen.progress("Replaying", seq) as tell:
            state = state_at(reader, seq, tell)
        at = next((row.at for row in reader.where("seq = ?", (seq,))), None)
    if hive.as_json:
        screen.print_json({"seq": seq, "at": at, "projections": as_data(state)})
    else:
        screen.heading(f"As of event {seq}{f', {screen.when(at)}' if at else ''}")
        _show_state(state)


@noun.command("why", example="hive audit why question 7")
def why(
    hive: Session,
    subject: Annotated[
        Literal["agent", "message", "question", "approval"], typer.Argument(metavar="agent|message|question|approval")
    ],
    id: Annotated[str, typer.Argument(metavar="ID", help="Its number, or the agent's name.")],
) -> None:
    """List, in order, the events that explain something."""
    from hive.audit.why import explain

    with log_reader(hive.paths) as reader:
        rows = explain(reader, subject, id)
    if hive.as_json:
        screen.print_json([events.as_data(row) for row in rows])
        return
    for row in rows:
        events.show(row)


def _events(hive: Session) -> int | None:
    """How many there are, for the progress bar; None when the log's end cannot be read."""
    try:
        with log_reader(hive.paths) as reader:
            return reader.head().seq
    except CorruptState:
        return None


def _show_state(state: Hive) -> None:
    agents = state.agents.living()
    columns = (Column("Agent", whole=True), Column("State", whole=True), Column("Waiting", right=True), "Status")
    screen.table(columns, [_agent_cells(state, row) for row in agents])
    for approval in state.approvals.pending():
        screen.line(f"approval {approval.id} pending: {approval.kind} {approval.agent}")
    for question in state.questions.pending():
        screen.line(
            f"question {question.id} pending: {question.asker} asks {question.target or 'operator'}: ",
            question.question,
        )
    for tombstone in state.agents.tombstones():
        screen.line(f"tombstone {tombstone.name}, destroyed {screen.when(tombstone.destroyed_ms)}")


def _agent_cells(state: Hive, row: Agent) -> list[Cell]:
    held = state.transient.held.get(row.name)
    shown = {
        "transient": held and held.kind,
        "failed": row.failure,
        "needs_login": row.needs_login,
        "paused": row.paused,
        "running": row.running,
    }
    return [
        row.name,
        state_of(shown),
        str(state.messages.waiting_count(row.name)),
        row.failure or row.status_text or "",
    ]
