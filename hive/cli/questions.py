"""Questions of agents: `hive questions`, `hive answer`, `hive cancel`."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from hive.cli import screen
from hive.cli.screen import Styled
from hive.cli.session import HiveOption, Noun, Session, open_questions
from hive.names import OPERATOR

noun = Noun("Questions and approvals")

IdArgument = Annotated[int, typer.Argument(metavar="ID", help="ID of the question.", autocompletion=open_questions)]


@noun.command("questions", example="hive questions --history")
def questions(
    hive: Session,
    history: Annotated[bool, typer.Option("--history", help="Include resolved questions.")] = False,
) -> None:
    """List open questions: yours and those between agents."""
    rows = hive.ask("questions", history=history)["questions"]
    if hive.as_json:
        screen.print_json(rows)
    elif not rows:
        screen.say("No open questions.")
    for row in [] if hive.as_json else rows:
        _show(row)


@noun.command("answer", example='hive answer 7 "Use SQLite"')
def answer(
    hive: Session,
    id: IdArgument,
    text: Annotated[
        list[str], typer.Argument(metavar="TEXT...", help="The answer; several values are joined with commas.")
    ],
    where: HiveOption = None,
) -> None:
    """Answer a question. The asker receives the answer in its inbox."""
    reply = hive.ask("answer_question", id=id, answer=", ".join(text), hive=where)
    hive.done(reply, f"Answered question {id}.")


@noun.command("cancel", example="hive cancel 7")
def cancel(hive: Session, id: IdArgument, where: HiveOption = None) -> None:
    """Cancel a question. The asker is notified."""
    hive.done(hive.ask("cancel_question", id=id, hive=where), f"Cancelled question {id}.")


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
