"""The tools that hive gives the model: names, schemas and requests. No SDK needed; `mcp_server` serves them."""

import math
from typing import Any

import msgspec

from hive.harness import framing
from hive.harness.connection import Daemon, DaemonAway, DaemonLimited, DaemonRefused

RECV_CAP_S = 180
"""Maximum time that the daemon parks a recv."""
LIFECYCLE_WAIT_S = 20 * 60
"""start, restart, kill and update reply when the act is done; a build takes minutes."""
AWAY_S = 60.0
"""How long a tool retries while the daemon is away, before it reports an error to the model."""

WAIT_SECONDS = {
    "type": "integer",
    "minimum": 0,
    "maximum": RECV_CAP_S,
    "description": (
        "Absent or 0: look and return at once. A positive number: park for up to that many seconds (at most 180) and"
        " return the moment a message arrives. Park with 180; never use a shell sleep."
    ),
}


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """One tool; its name is the request's `cmd`."""

    name: str
    description: str
    properties: dict[str, Any] = {}
    required: tuple[str, ...] = ()
    waits_s: float = 0.0
    """How long the daemon may take to reply."""

    @property
    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": self.properties,
            "required": list(self.required),
            "additionalProperties": False,
        }


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


def _number(description: str, **bounds: int) -> dict[str, Any]:
    return {"type": "integer", "description": description, **bounds}


_QUESTION = {
    "question": _text("The complete question: the reader does not see your conversation."),
    "options": {"type": "array", "items": {"type": "string"}, "description": "Answers to choose from."},
    "multi": {"type": "boolean", "description": "Any number of the options may be chosen. Default: one."},
    "ttl_seconds": _number("Resolve as [expired] after this many seconds. Absent: wait forever.", minimum=1),
}
_AGENT = {"name": _text("The agent's name.")}

AGENT_TOOLS = (
    Tool(
        name="send",
        description='Send a message to another agent, to "manager", to "operator", or to "*" for every agent.',
        properties={
            "to": _text("Recipient's name."),
            "body": _text("What to say."),
            "in_reply_to": _number("Id of the message that this replies to."),
        },
        required=("to", "body"),
    ),
    Tool(
        name="recv",
        description="Take the next messages from your inbox. They count as handled when this turn ends.",
        properties={
            "wait_seconds": WAIT_SECONDS,
            "max": _number("How many to take at most. Default 1.", minimum=1, maximum=32),
        },
        waits_s=RECV_CAP_S,
    ),
    Tool(
        name="recent",
        description="Read the newest messages addressed to you again, handled or not, without taking any.",
        properties={"limit": _number("How many. Default 10.", minimum=1)},
    ),
    Tool(
        name="ask_operator",
        description=(
            "Ask the human operator. Returns the question's id at once; the answer comes to your inbox later as an"
            " operator_answered event. Do not wait for it: end your turn, or go on with other work."
        ),
        properties=_QUESTION,
        required=("question",),
    ),
    Tool(
        name="ask",
        description=(
            "Ask another agent a question that it must answer. Returns the question's id at once; the answer comes to"
            " your inbox as an operator_answered event that names who answered."
        ),
        properties={"to": _text("The agent to ask."), **_QUESTION},
        required=("to", "question"),
    ),
    Tool(
        name="request_egress",
        description=(
            "Ask the operator to let you connect to a host. Returns the request's id at once; the decision comes to"
            " your inbox later as an approval_resolved event. Continue without the host until then."
        ),
        properties={
            "host": _text('The host: "name", "name:port" or "*.domain".'),
            "why": _text("What you need it for, in one line; the operator reads it."),
        },
        required=("host", "why"),
    ),
    Tool(
        name="answer",
        description="Answer a question that you were asked (a question_asked event in your inbox).",
        properties={"id": _number("The question's id."), "answer": _text("Your answer.")},
        required=("id", "answer"),
    ),
    Tool(
        name="open_threads",
        description="List the open questions: those you asked and those asked of you.",
    ),
    Tool(
        name="remind",
        description=(
            "Send a message from system to your own inbox later. Give delay_seconds or at. Use this instead of"
            " waiting when something is due later."
        ),
        properties={
            "message": _text("The reminder's text. Write it for a reader who has forgotten the context."),
            "delay_seconds": _number("Due after this many seconds, at most a year ahead.", minimum=1),
            "at": _text("Due at this time, at most a year ahead; RFC 3339 with a zone, such as 2026-01-31T09:30:00Z."),
        },
        required=("message",),
    ),
    Tool(
        name="set_status",
        description="Show the operator one short status line, such as what you are working on. Empty clears it.",
        properties={"text": _text("The line.")},
        required=("text",),
    ),
)

MANAGER_TOOLS = (
    Tool(
        name="request_spawn",
        description=(
            "Ask the operator to approve a new agent. Returns the approval's id at once; nothing happens until the"
            " operator approves, and an approval_resolved event tells you how it went."
        ),
        properties={
            "name": _text("The new agent's name: a-z, 0-9 and -, at most 32."),
            "description": _text("Why it is needed and what it will do. The operator decides based on this."),
        },
        required=("name",),
    ),
    Tool(
        name="request_apply_commit",
        description=(
            "Ask the operator to approve a commit of an agent's proposed configuration. The commit is fetched and"
            " pinned now: what you change later needs a new request. An approval_resolved event tells you how it went."
        ),
        properties={
            "agent": _text("Whose configuration."),
            "commit_ref": _text("The commit in /agents/<agent>: a sha, branch or tag."),
            "description": _text("What changes and why. The operator decides based on this and the diff."),
        },
        required=("agent", "commit_ref"),
    ),
    Tool(
        name="cancel_request",
        description="Withdraw one of your requests that is still pending.",
        properties={"id": _number("The approval's id.")},
        required=("id",),
    ),
    Tool(
        name="start",
        description="Start a stopped agent. Needs no approval.",
        properties=_AGENT,
        required=("name",),
        waits_s=LIFECYCLE_WAIT_S,
    ),
    Tool(
        name="restart",
        description="Restart an agent. Needs no approval. What it was doing is requeued.",
        properties=_AGENT,
        required=("name",),
        waits_s=LIFECYCLE_WAIT_S,
    ),
    Tool(
        name="kill",
        description="Stop an agent at once. Needs no approval. Its messages wait until it is started again.",
        properties=_AGENT,
        required=("name",),
        waits_s=LIFECYCLE_WAIT_S,
    ),
    Tool(
        name="update",
        description="Rebuild an agent on its approved configuration. Needs no approval; harmless when up to date.",
        properties=_AGENT,
        required=("name",),
        waits_s=LIFECYCLE_WAIT_S,
    ),
    Tool(name="list_agents", description="List all agents and their states."),
    Tool(
        name="logs",
        description="Read the newest lines an agent's process printed. Use it when an agent crashes.",
        properties={**_AGENT, "lines": _number("How many. Default 50.", minimum=1)},
        required=("name",),
    ),
)


def offered(manager: bool) -> tuple[Tool, ...]:
    """Return the tools of an agent or of the manager."""
    return AGENT_TOOLS + MANAGER_TOOLS if manager else AGENT_TOOLS


class Outcome(msgspec.Struct, frozen=True):
    """The text that the model reads."""

    text: str
    is_error: bool = False


class Toolbox:
    """Runs the model's tool calls. Messages that it receives are acked or requeued with the turn."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.taken: list[int] = []
        """Ids of the messages that `recv` delivered during this turn."""

    async def run(self, tool: Tool, arguments: dict[str, Any]) -> Outcome:
        """Send one request. A refusal becomes an error result with the daemon's text."""
        fields = {"limit": 10} if tool.name == "recent" else {"lines": 50} if tool.name == "logs" else {}
        try:
            reply = await self._daemon.tool(tool.name, waits_s=tool.waits_s, away_s=AWAY_S, **(fields | arguments))
        except DaemonLimited as limited:
            return Outcome(_limited(tool, limited), is_error=True)
        except DaemonRefused as refused:
            return Outcome(str(refused), is_error=True)
        except DaemonAway:
            return Outcome(
                f"The hive daemon did not answer for {AWAY_S:.0f} s, so this may not have happened. Check before you"
                " repeat it, or end your turn: hive retries it by itself.",
                is_error=True,
            )
        away_s = reply.pop("daemon_away_s", None)
        reply.pop("ok", None)
        if tool.name == "recv":
            self.taken.extend(row["id"] for row in reply.get("messages", []))
        if "messages" in reply:
            reply["messages"] = [framing.message(row) for row in reply["messages"]]
        text = framing.encode(reply)
        if away_s is not None:
            text += f"\nThe hive daemon was away for {away_s} s; the call was repeated and counts once."
        return Outcome(text)


def _limited(tool: Tool, limited: DaemonLimited) -> str:
    """What was refused, when to try again, and what to do instead."""
    wait_s = max(1, math.ceil(limited.retry_after_s))
    return (
        f"Nothing was done: {limited} You may call {tool.name} again in {wait_s} s, not before. Repeating it at once"
        " fails again. Write fewer and shorter messages, put large texts into a file and send its path, or end your"
        " turn."
    )
