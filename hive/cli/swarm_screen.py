"""Draws the hives of a swarm on the terminal, for `hive status --swarm` and `hive swarm status`."""

from typing import Any

from hive.cli import screen
from hive.cli.screen import Cell, Styled
from hive.cli.session import Session

STALE_S = 15.0
"""A screen is shown again every few seconds; an older one says that its hive is not reached."""


def show_swarm(hive: Session) -> None:
    """Every hive with its agents and what waits on an operator."""
    reply = hive.ask("swarm")
    name = reply["swarm"].get("name")
    hives = [{"name": name, "age_seconds": 0.0, **reply["own"]}]
    hives += [row for row in reply["peers"] if row["trusted"]]
    if hive.as_json:
        screen.print_json({"hives": hives, "swarm": reply["swarm"]})
        return
    if name is None:
        screen.say("This hive is in no swarm. Run: hive swarm init NAME --server URL")
        return
    _say_problem(reply["swarm"])
    for row in hives:
        _show_hive(row, is_own=row["name"] == name)


def show_connection(reply: dict[str, Any]) -> None:
    """This hive's connection and its peers."""
    swarm = reply["swarm"]
    if swarm.get("name") is None:
        screen.say("This hive is in no swarm. Run: hive swarm init NAME --server URL")
        return
    screen.line(Styled(str(swarm["name"]), "bold"))
    if swarm["connected"]:
        screen.say(f"connected to {swarm['server']}{'' if swarm['encrypted'] else ', not encrypted'}")
    _say_problem(swarm)
    if swarm.get("shipped") is not None:
        count = swarm.get("copies")
        copies = "" if count is None else f", {count} {'copy' if count == 1 else 'copies'}"
        screen.say(f"replica: {swarm['shipped']} of {swarm['head']} events, {swarm['lag']} behind{copies}")
    rows: list[list[Cell]] = [
        [
            str(row["name"]),
            _age(row) if row["trusted"] else Styled("not trusted", "dim"),
            str(row["owed"]),
            str(row["sent"]),
            str(row["received"]),
            ", ".join(row["operators"]),
        ]
        for row in reply["peers"]
    ]
    screen.table(["PEER", "SEEN", "OWED", "SENT", "RECEIVED", "OPERATORS"], rows)


def _say_problem(swarm: dict[str, Any]) -> None:
    if not swarm["connected"]:
        screen.line(Styled(f"Not connected: {swarm.get('problem', 'the daemon has not tried yet')}", "red"))
    elif swarm.get("problem"):
        screen.line(Styled(str(swarm["problem"]), "red"))


def _age(row: dict[str, Any]) -> Styled:
    age = row.get("age_seconds")
    if age is None:
        return Styled("never seen", "red")
    text = f"{screen.duration(age)} ago"
    return Styled(text, "dim" if age < STALE_S else "red")


def _show_hive(row: dict[str, Any], *, is_own: bool) -> None:
    screen.say("")
    screen.line(Styled(str(row["name"]), "bold"), "  ", Styled("this hive", "dim") if is_own else _age(row))
    where = "" if is_own else f" --hive {row['name']}"
    for agent in row.get("agents", ()):
        screen.line(f"  {agent['name']:<24} {agent['state']:<12} ", Styled(str(agent.get("status_text", "")), "dim"))
    for approval in row.get("approvals", ()):
        about = f" – {approval['description']}" if approval.get("description") else ""
        screen.line(
            Styled(f"  approval {approval['id']}", "yellow"),
            f"  {approval['kind']} {approval['agent']}{about}  ",
            Styled(f"hive approve {approval['id']}{where}", "dim"),
        )
    for question in row.get("questions", ()):
        screen.line(
            Styled(f"  question {question['id']}", "yellow"),
            f"  {question['asker']}: {question['question']}  ",
            Styled(f"hive answer {question['id']} TEXT{where}", "dim"),
        )
