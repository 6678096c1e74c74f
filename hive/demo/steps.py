"""The demo's steps: the expected events, a sentence for each, and the operator's reaction."""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from hive.demo.scripts import BADGE_QUESTION, EXPIRING_QUESTION, LAST_QUESTION
from hive.errors import Unavailable
from hive.sockets.client import HostClient

Data = dict[str, Any]


class DemoStep(msgspec.Struct, frozen=True):
    """One step: an expected event, printed as a sentence when the log has it."""

    type: str
    text: str
    """A format string over the event's fields."""
    when: Callable[[Data], bool] = lambda _: True
    then: Callable[[HostClient, Data], str | None] | None = None
    """The operator's reaction. A returned text is printed."""

    def described(self, data: Data) -> str:
        return self.text.format_map(_Fields(data))


class _Fields(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "unknown"


def _of(agent: str) -> Callable[[Data], bool]:
    return lambda data: bool(data.get("agent") == agent)


def _asks(question: str) -> Callable[[Data], bool]:
    return lambda data: bool(data.get("question") == question)


def _answered(answer: str) -> Callable[[Data], bool]:
    return lambda data: bool(data.get("answer") == answer)


def _sent(sender: str, to: str) -> Callable[[Data], bool]:
    return lambda data: (data.get("from"), data.get("to")) == (sender, to)


def _turn_with_tools(data: Data) -> bool:
    return bool(data.get("agent") == "coder" and data.get("input_tokens") and data.get("tool_call_count"))


def _is_spawn(data: Data) -> bool:
    return bool(data.get("kind") == "spawn")


def _approved(kind: str) -> Callable[[Data], bool]:
    return lambda data: (data.get("kind"), data.get("status")) == (kind, "approved")


def _approve(client: HostClient, data: Data) -> None:
    client.ask("approve", id=data["id"])


def _approve_diff(client: HostClient, data: Data) -> str:
    """Approve with the sha of the shown diff, so that nothing else can be approved."""
    added = [line for line in client.ask("diff", id=data["id"])["diff"].splitlines() if re.match(r"[+-][^+-]", line)]
    if not added:
        raise Unavailable(f"Proposal {data['id']} has an empty diff.")
    client.ask("approve", id=data["id"], sha=data["fetched_sha"])
    return "\n".join(added)


def _choose_mauve(client: HostClient, data: Data) -> None:
    client.ask("answer_question", id=data["id"], answer="mauve")


STEPS = (
    DemoStep("Spawned", "A new hive starts with a manager.", _of("manager")),
    DemoStep("MessageSent", "You write to the manager: “{body}”", _sent("operator", "manager")),
    DemoStep("TurnStarted", "The manager starts its first turn.", _of("manager")),
    DemoStep(
        "ApprovalRequested", "The manager requests a new agent, {agent}. Only you can approve it.", _is_spawn, _approve
    ),
    DemoStep("ApprovalResolved", "You approve request {id}.", _approved("spawn")),
    DemoStep("Spawned", "The coder is spawned in its own sandbox.", _of("coder")),
    DemoStep("MessageSent", "The manager gives it a task: “{body}”", _sent("manager", "coder")),
    DemoStep("TurnStarted", "The coder starts its first turn.", _of("coder")),
    DemoStep("QuestionAdded", "The coder asks you: “{question}” {options}", _asks(BADGE_QUESTION), _choose_mauve),
    DemoStep("QuestionResolved", "You answer: {answer}.", _answered("mauve")),
    DemoStep(
        "TurnEnded",
        "A turn of the coder ends: {input_tokens} tokens in, {output_tokens} out, tools {tool_calls_json}.",
        _turn_with_tools,
    ),
    DemoStep("MessageSent", "The coder reports to the manager: “{body}”", _sent("coder", "manager")),
    DemoStep(
        "ProposalPinned",
        "The manager proposes a new prompt, commit {fetched_sha}. You read the diff.",
        then=_approve_diff,
    ),
    DemoStep("ApprovalResolved", "You approve exactly this commit.", _approved("apply_commit")),
    DemoStep("Rebuilt", "The coder is restarted on the approved commit.", lambda data: data.get("ok") is True),
    DemoStep("ProposalPinned", "The next proposal has a typing error. You approve it, too.", then=_approve_diff),
    DemoStep("ApprovalFailed", "The build fails, and the coder keeps its configuration: {error}"),
    DemoStep(
        "QuestionAdded", "The manager asks you a question with a deadline of two seconds.", _asks(EXPIRING_QUESTION)
    ),
    DemoStep(
        "QuestionResolved", "You do not answer. At the deadline the watchdog answers {answer}.", _answered("[expired]")
    ),
    DemoStep("Killed", "The manager kills the coder.", _of("coder")),
    DemoStep(
        "Started",
        "The manager starts the coder again.",
        lambda data: (data.get("agent"), data.get("reason")) == ("coder", "start"),
    ),
    DemoStep("Rebuilt", "The manager has the coder rebuilt.", lambda data: data.get("ok") is True),
    DemoStep("QuestionAdded", "The manager asks for the next task: “{question}” {options}", _asks(LAST_QUESTION)),
)
"""In order of matching: an event matches the first open step. The demo succeeds if the log has every step."""
