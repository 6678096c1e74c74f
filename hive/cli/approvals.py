"""Approvals, which only an operator decides: `hive approvals`, `hive diff`, `hive approve`, `hive deny`."""

from typing import Annotated, Any

import typer

from hive.cli import screen
from hive.cli.screen import Cell, Styled
from hive.cli.session import HiveOption, Noun, Session, pending_approvals
from hive.hosts import written

noun = Noun("Questions and approvals")

SHOWN = 50
SHA_SHOWN = 12
STYLES = {"pending": "yellow", "approved": "green", "denied": "red", "failed": "red", "cancelled": "dim"}
_DIFF_STYLES = (("+++", "bold"), ("---", "bold"), ("@@", "cyan"), ("+", "green"), ("-", "red"), ("diff ", "bold"))

IdArgument = Annotated[int, typer.Argument(metavar="ID", help="ID of the approval.", autocompletion=pending_approvals)]


@noun.command("approvals", example="hive approvals")
def approvals(
    hive: Session,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", help="Number of newest approvals.")] = SHOWN,
) -> None:
    """List pending and decided approvals."""
    rows = hive.ask("approvals", limit=limit)["approvals"]
    if hive.as_json:
        screen.print_json(rows)
    elif not rows:
        screen.say("No approvals.")
    else:
        columns = ("ID", "Status", "Kind", "Agent", "Commit or host", "Requested")
        screen.listing(columns, [(_cells(row), _about(row)) for row in rows])


@noun.command("diff", example="hive diff 3")
def diff(hive: Session, id: IdArgument, where: HiveOption = None) -> None:
    """Show the configuration diff of an approval."""
    reply = hive.ask("diff", id=id, hive=where)
    if hive.as_json:
        screen.print_json(reply)
        return
    if not reply["diff"]:
        screen.say("The approval changes no configuration.")
    if reply.get("stale"):
        screen.say("Stale: another commit was applied after this proposal. It will be refused.")
    for text in str(reply["diff"]).splitlines():
        style = next((style for prefix, style in _DIFF_STYLES if text.startswith(prefix)), "")
        screen.whole_line(Styled(text, style))


@noun.command("approve", example="hive approve 3")
def approve(
    hive: Session,
    id: IdArgument,
    sha: Annotated[
        str | None, typer.Option("--sha", metavar="SHA", help="Refuse unless this commit is the pinned one.")
    ] = None,
    for_all: Annotated[bool, typer.Option("--all", help="Of a request for a host: allow it for every agent.")] = False,
    where: HiveOption = None,
) -> None:
    """Approve a request. The pinned commit is built."""
    reply = hive.ask("approve", id=id, sha=sha, for_all=for_all or None, hive=where)
    hive.done(reply, f"Approved request {id}{' for every agent' if for_all else ''}.")


@noun.command("deny", example='hive deny 3 --note "not before Monday"')
def deny(
    hive: Session,
    id: IdArgument,
    note: Annotated[str | None, typer.Option("--note", metavar="N", help="Reason; the requester receives it.")] = None,
    where: HiveOption = None,
) -> None:
    """Deny a request."""
    hive.done(hive.ask("deny", id=id, note=note, hive=where), f"Denied request {id}.")


def _cells(row: dict[str, Any]) -> list[Cell]:
    status = str(row["status"])
    what = str(row.get("fetched_sha") or row.get("commit_ref") or "")[:SHA_SHOWN] or target(row)
    shown_status = Styled(status, STYLES.get(status, ""))
    return [
        str(row["id"]),
        shown_status,
        str(row["kind"]),
        str(row["agent"]),
        what,
        screen.when(row["requested_at"]),
    ]


def target(row: dict[str, Any]) -> str:
    """Host and port of a request of kind `egress`; empty for other kinds."""
    return written(row["host"], row.get("port")) if row.get("host") else ""


def _about(row: dict[str, Any]) -> str:
    return " – ".join(str(row[key]) for key in ("description", "note") if row.get(key))
