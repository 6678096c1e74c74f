"""`hive search`: full text over messages, questions, answers and notes, with or without a daemon."""

from typing import Annotated

import typer

from hive.cli import screen
from hive.cli.screen import Styled
from hive.cli.session import Noun, Session, agent_names

noun = Noun("Audit")

SHOWN = 20


def _kinds(incomplete: str) -> list[str]:
    from hive.search.texts import KINDS

    return [kind for kind in KINDS if kind.startswith(incomplete)]


@noun.command("search", example='hive search "parser error"')
def search(
    hive: Session,
    text: Annotated[
        list[str], typer.Argument(metavar="TEXT...", help='Words that all occur; "a phrase"; begin* of a word.')
    ],
    agent: Annotated[
        str | None, typer.Option("--agent", metavar="A", help="Said by or to it.", autocompletion=agent_names)
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--kind", metavar="K", help="message, question, answer or note.", autocompletion=_kinds),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", help="At most so many hits.")] = SHOWN,
) -> None:
    """Search what was said, newest first."""
    from hive.audit.reading import lower_priority
    from hive.search.index import index

    lower_priority(hive.paths)
    with screen.progress("Indexing", None) as tell, index(hive.paths, tell) as opened:
        hits = opened.find(" ".join(text), agent=agent, kind=kind, limit=limit)
    if hive.as_json:
        screen.print_json(hits)
        return
    if not hits:
        screen.say("Nothing matches.")
    for hit in hits:
        where = f"{hit.kind} {hit.id}  {hit.sender} → {hit.to}"
        screen.line(Styled(where, "bold"), Styled(f"  {screen.when(hit.at)}  event {hit.seq}", "dim"))
        screen.whole_line("    ", hit.text)
