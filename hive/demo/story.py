"""The demo's story: what must be found in the log, what it means, and what the operator does about it."""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from hive.demo.scripts import BADGE_QUESTION, EXPIRING_QUESTION, LAST_QUESTION
from hive.errors import Unavailable
from hive.sockets.client import HostClient

Data = dict[str, Any]


class Beat(msgspec.Struct, frozen=True):
    """One step of the story: an event, told in a sentence once it is in the log."""

    type: str
    text: str
    """With the event's fields in braces."""
    when: Callable[[Data], bool] = lambda _: True
    then: Callable[[HostClient, Data], str | None] | None = None
    """What the operator does about it; what is returned is shown."""

    def told(self, data: Data) -> str:
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
    """What was seen is what is approved: the sha goes with the decision."""
    added = [line for line in client.ask("diff", id=data["id"])["diff"].splitlines() if re.match(r"[+-][^+-]", line)]
    if not added:
        raise Unavailable(f"Proposal {data['id']} has an empty diff.")
    client.ask("approve", id=data["id"], sha=data["fetched_sha"])
    return "\n".join(added)


def _choose_mauve(client: HostClient, data: Data) -> None:
    client.ask("answer_question", id=data["id"], answer="mauve")


BEATS = (
    Beat("Spawned", "The manager is there from the first start on.", _of("manager")),
    Beat("MessageSent", "You tell the manager what you need: “{body}”", _sent("operator", "manager")),
    Beat("TurnStarted", "The manager wakes for its first turn.", _of("manager")),
    Beat("ApprovalRequested", "The manager asks for a new agent, {agent}; only you can allow it.", _is_spawn, _approve),
    Beat("ApprovalResolved", "You approve request {id}.", _approved("spawn")),
    Beat("Spawned", "The coder is spawned, in a sandbox of its own.", _of("coder")),
    Beat("MessageSent", "The manager gives it a task: “{body}”", _sent("manager", "coder")),
    Beat("TurnStarted", "The coder takes its first turn.", _of("coder")),
    Beat("QuestionAdded", "The coder asks you: “{question}” {options}", _asks(BADGE_QUESTION), _choose_mauve),
    Beat("QuestionResolved", "You answer: {answer}.", _answered("mauve")),
    Beat(
        "TurnEnded",
        "A turn of the coder is over: {input_tokens} tokens in, {output_tokens} out, tools {tool_calls_json}.",
        _turn_with_tools,
    ),
    Beat("MessageSent", "The coder reports to the manager: “{body}”", _sent("coder", "manager")),
    Beat(
        "ProposalPinned",
        "The manager proposes a new prompt: {fetched_sha}. You see the diff …",
        then=_approve_diff,
    ),
    Beat("ApprovalResolved", "… and approve exactly that commit …", _approved("apply_commit")),
    Beat("Rebuilt", "… and the coder is restarted on it.", lambda data: data.get("ok") is True),
    Beat("ProposalPinned", "The next proposal has a typing error. You approve that one, too.", then=_approve_diff),
    Beat("ApprovalFailed", "Its build fails, and the coder goes on as it was: {error}"),
    Beat("QuestionAdded", "The manager asks you something, for two seconds only.", _asks(EXPIRING_QUESTION)),
    Beat("QuestionResolved", "You say nothing: the watchdog answers {answer}.", _answered("[expired]")),
    Beat("Killed", "The manager kills the coder …", _of("coder")),
    Beat("Started", "… starts it again …", lambda data: (data.get("agent"), data.get("reason")) == ("coder", "start")),
    Beat("Rebuilt", "… and has it rebuilt.", lambda data: data.get("ok") is True),
    Beat("QuestionAdded", "The manager asks what comes next: “{question}” {options}", _asks(LAST_QUESTION)),
)
"""In the order in which they are told when several are found at once; each must be found for the demo to succeed."""
