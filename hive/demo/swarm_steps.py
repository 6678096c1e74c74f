"""The steps of `hive demo --swarm`: what the operator does, and the event that one of the two logs must then have."""

import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from hive.demo.steps import Data, DemoStep
from hive.demo.swarm_scripts import OPERATOR_QUESTION, PAINTED, PEER_QUESTION, RECALL, RECALLED, REQUEST
from hive.demo.two_hives import TwoHives
from hive.errors import HiveError, Unavailable

LOOK_EVERY_S: Final = 0.2
SCREEN_MAX_S: Final = 30.0
ADOPT_MAX_S: Final = 60.0
"""A hive counts as lost when its screen is old enough."""
COLOUR: Final = "mauve"


class SwarmStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step, in this order; an event counts only after that of the step before in the same log."""

    hive: str
    """The hive whose log must have the event."""
    event: DemoStep
    act: Callable[[TwoHives], str | None] | None = None
    """What the operator does first. A returned text is printed."""


def _step(
    hive: str,
    type_: str,
    text: str,
    act: Callable[[TwoHives], str | None] | None = None,
    **fields: Any,
) -> SwarmStep:
    """`fields`: what the event's data must have."""
    wanted = {key.rstrip("_"): value for key, value in fields.items()}

    def when(data: Data) -> bool:
        return all(
            value in data.get(key, "") if key == "body" else data.get(key) == value for key, value in wanted.items()
        )

    return SwarmStep(hive=hive, event=DemoStep(type_, text, when), act=act)


def _spawn(hive: str, agent: str) -> Callable[[TwoHives], None]:
    return lambda hives: hives.ask(hive, "spawn", name=agent) and None


def _send(to: str, body: str) -> Callable[[TwoHives], None]:
    return lambda hives: hives.ask("tokyo", "send", to=to, body=body) and None


def _answer_there(hives: TwoHives) -> str:
    """On Tokyo's screen, as soon as it shows Berlin's question."""
    deadline = time.monotonic() + SCREEN_MAX_S
    while True:
        (berlin,) = hives.ask("tokyo", "swarm")["peers"]
        for question in berlin.get("questions", ()):
            if question["question"] == OPERATOR_QUESTION:
                hives.ask("tokyo", "answer_question", id=question["id"], answer=COLOUR, hive="berlin")
                return f"$ hive answer {question['id']} {COLOUR} --hive berlin"
        if time.monotonic() > deadline:
            raise Unavailable("Tokyo's screen does not show Berlin's question.")
        time.sleep(LOOK_EVERY_S)


def _move(hives: TwoHives) -> str:
    hives.ask("tokyo", "move", name="coder", hive="berlin")
    return "$ hive move coder berlin"


def _lose_and_adopt(hives: TwoHives) -> str:
    """The command refuses as long as the other hive may be alive."""
    hives.lose("berlin")
    deadline = time.monotonic() + ADOPT_MAX_S
    while True:
        (berlin,) = hives.ask("tokyo", "swarm")["peers"]
        try:
            agents = hives.ask("tokyo", "adopt", hive="berlin")["agents"]
        except HiveError:
            if time.monotonic() > deadline:
                raise
            time.sleep(LOOK_EVERY_S)
        else:
            seen = f"Tokyo's screen: berlin was seen {berlin['age_seconds']:.0f}s ago."
            return f"{seen}\n$ hive swarm adopt berlin\nAdopted: {', '.join(agents)}"


STEPS: Final = (
    _step("tokyo", "Spawned", "You spawn a coder in Tokyo.", _spawn("tokyo", "coder"), agent="coder"),
    _step("berlin", "Spawned", "You spawn a smith in Berlin.", _spawn("berlin", "smith"), agent="smith"),
    _step("tokyo", "MessageSent", "You write to the coder: “{body}”", _send("coder", REQUEST), to="coder"),
    _step("tokyo", "QuestionAdded", "The coder asks {target}: “{question}”", question=PEER_QUESTION),
    _step("berlin", "QuestionAdded", "The question of {asker} arrives once.", question=PEER_QUESTION),
    _step("berlin", "QuestionAdded", "The smith asks its operator: “{question}”", question=OPERATOR_QUESTION),
    _step("tokyo", "DecisionSent", "You answer on Tokyo's screen; Berlin decides.", _answer_there, verdict="answer"),
    _step("berlin", "QuestionResolved", "Berlin records who answered “{answer}”: {by}.", asker="smith"),
    _step("tokyo", "QuestionResolved", "The answer of {answerer} is back: {answer}.", answer=COLOUR),
    _step("tokyo", "MessageSent", "The coder reports: “{body}”", to="operator", body=PAINTED),
    _step("tokyo", "MoveBegun", "You move the coder to Berlin. It stops.", _move, agent="coder"),
    _step("tokyo", "MoveSent", "Its files are in the swarm. From here on Berlin owns it.", agent="coder"),
    _step("berlin", "MoveArrived", "Berlin takes it.", agent="coder"),
    _step("berlin", "Started", "It runs in Berlin.", agent="coder"),
    _step("tokyo", "Moved", "Tokyo knows the new address, coder@{to}.", agent="coder"),
    _step("tokyo", "MessageSent", "You write to the old address: “{body}”", _send("coder", RECALL), body=RECALL),
    _step("tokyo", "MessageSent", "{from} has its notes: “{body}”", from_="coder@berlin", body=RECALLED),
    _step("tokyo", "Adopted", "Berlin's host is lost. You adopt {agent}.", _lose_and_adopt, agent="coder"),
    _step("tokyo", "Started", "The coder runs in Tokyo again.", agent="coder"),
    _step("tokyo", "MessageSent", "You write to it: “{body}”", _send("coder", RECALL), to="coder", body=RECALL),
    _step("tokyo", "MessageSent", "It still has its notes: “{body}”", from_="coder", body=RECALLED),
    _step(
        "berlin",
        "Adopted",
        "Berlin is back, and reads that {agent} is in {to} now.",
        lambda hives: hives.bring_back("berlin"),
        agent="coder",
    ),
    _step("berlin", "Destroyed", "It does not run {agent}.", agent="coder"),
)
