"""Questions that agents ask: `hive questions`, `hive answer`, `hive cancel`."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from hive.cli import screen
from hive.cli.screen import Styled
from hive.cli.session import Noun, Session, open_questions
from hive.names import OPERATOR

noun = Noun("Questions and approvals")

IdArgument = Annotated[int, typer.Argument(metavar="ID", help="The question.", autocompletion=open_questions)]


@noun.command("questions", example="hive questions --history")
def questions(
    hive: Session,
    history: Annotated[bool, typer.Option("--history", help="Those that were resolved, too.")] = False,
) -> None:
    """List the questions that wait, yours and those between agents."""
    rows = hive.ask("questions", history=history)["questions"]
    if hive.as_json:
        screen.print_json(rows)
    elif not rows:
        screen.say("No question waits.")
    for row in [] if hive.as_json else rows:
        _show(row)


@noun.command("answer", example='hive answer 7 "Use SQLite"')
def answer(
    hive: Session,
    id: IdArgument,
    text: Annotated[list[str], typer.Argument(metavar="TEXT...", help="The answer; several options are joined.")],
) -> None:
    """Answer a question; the answer reaches the asker's inbox."""
    reply = hive.ask("answer_question", id=id, answer=", ".join(text))
    hive.done(reply, f"Question {id} is answered.")


@noun.command("cancel", example="hive cancel 7")
def cancel(hive: Session, id: IdArgument) -> None:
    """Cancel a question; its asker is told."""
    hive.done(hive.ask("cancel_question", id=id), f"Question {id} is cancelled.")


def _show(row: Mapping[str, Any]) -> None:
    screen.line(
        Styled(f"{row['id']}", "bold"),
        "  ",
        Styled(str(row["asker"]), "cyan"),
        Styled(f" → {row.get('target') or OPERATOR}", "dim"),
        Styled(f"  {screen.when(row['asked_at'])}", "dim"),
        Styled(_remaining(row), "yellow"),
    )
    screen.say_each(f"    {line}" for line in str(row["question"]).splitlines())
    mark = "[ ]" if row.get("multi") else "( )"
    screen.say_each(f"    {mark} {option}" for option in row.get("options") or ())
    if row.get("answer") is not None:
        screen.line(Styled("    = ", "dim"), Styled(str(row["answer"]), "green"), f"  ({row.get('answerer')})")


def _remaining(row: Mapping[str, Any]) -> str:
    if not row.get("deadline_at") or row.get("answer") is not None:
        return ""
    return f"  ⏳ {screen.duration(screen.seconds_until(row['deadline_at']))}"
