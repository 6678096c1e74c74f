"""A sequence of requests that uses every verb of the agent protocol, for its golden requests and replies."""

import json
import re
from pathlib import Path
from typing import Any, Final

from system.hive_process import HiveProcess, Lines

GOLDEN: Final = Path(__file__).parent / "golden_agent"
HOST: Final = "host"
MANAGER: Final = "manager"
CODER: Final = "coder"

Said = tuple[str, dict[str, Any]]
"""The sender and the request."""

STORY: Final[list[Said]] = [
    (MANAGER, {"cmd": "request_spawn", "name": "coder", "description": "writes code"}),
    (HOST, {"cmd": "approve", "id": 1}),
    (HOST, {"cmd": "spawn", "name": "tester"}),
    (HOST, {"cmd": "set_paused", "name": "coder", "paused": True}),
    (HOST, {"cmd": "stop", "scope": {"agent_names": ["coder", "tester"]}, "graceful": True}),
    (CODER, {"cmd": "hello", "incarnation": "golden"}),
    (CODER, {"cmd": "whoami"}),
    (HOST, {"cmd": "send", "to": "coder", "body": "write a parser"}),
    (CODER, {"cmd": "send", "to": "tester", "body": "test it", "from": "operator"}),
    (CODER, {"cmd": "recv", "wait_seconds": 0, "max": 32}),
    (CODER, {"cmd": "requeue", "ids": [2], "reason": "rate_limited"}),
    (CODER, {"cmd": "ack", "ids": [2]}),
    (CODER, {"cmd": "recent", "limit": 1}),
    (CODER, {"cmd": "ask_operator", "question": "LL or LR?", "options": ["LL", "LR"], "ttl_seconds": 3600}),
    (CODER, {"cmd": "ask", "to": "tester", "question": "Ready?", "multi": False}),
    (CODER, {"cmd": "open_threads"}),
    (HOST, {"cmd": "answer_question", "id": 1, "answer": "LL"}),
    (CODER, {"cmd": "cancel_question", "id": 2}),
    (CODER, {"cmd": "ask_operator", "question": "Now?"}),
    (HOST, {"cmd": "cancel_question", "id": 3}),
    (MANAGER, {"cmd": "ask", "to": "coder", "question": "Done?"}),
    (CODER, {"cmd": "answer", "id": 4, "answer": "yes"}),
    (CODER, {"cmd": "remind", "message": "look again", "delay_seconds": 3600}),
    (CODER, {"cmd": "count_pending_reminders"}),
    (CODER, {"cmd": "set_status", "text": "parsing"}),
    (CODER, {"cmd": "turn_started", "model": "claude-x", "wake_from": "operator", "message_ids": [2]}),
    (
        CODER,
        {
            "cmd": "turn_ended",
            "model": "claude-x",
            "wake_from": "operator",
            "result_kind": "ok",
            "started_at": "2026-01-31T09:30:00.000Z",
            "ended_at": "2026-01-31T09:30:01.500Z",
            "duration_ms": 1500,
            "input_tokens": 100,
            "output_tokens": 20,
            "cache_read_tokens": None,
            "cache_creation_tokens": None,
            "tool_call_count": 3,
            "tool_calls_json": '{"Read":2,"Bash":1}',
            "open_threads_count": 0,
            "open_reminders_count": 1,
            "note": None,
        },
    ),
    (CODER, {"cmd": "live", "lines": [{"kind": "text", "text": "hello"}]}),
    (CODER, {"cmd": "next_control", "wait_seconds": 0}),
    (CODER, {"cmd": "rate_limited", "until": "2099-01-31T09:30:00Z"}),
    (CODER, {"cmd": "login", "logged_in": False}),
    (HOST, {"cmd": "request_spawn", "name": "writer"}),
    (HOST, {"cmd": "deny", "id": 2, "note": "not now"}),
    (MANAGER, {"cmd": "request_apply_commit", "agent": "coder", "commit_ref": "main"}),
    (MANAGER, {"cmd": "request_spawn", "name": "docs"}),
    (MANAGER, {"cmd": "cancel_request", "id": 4}),
    (MANAGER, {"cmd": "start", "name": "tester"}),
    (MANAGER, {"cmd": "restart", "name": "tester"}),
    (MANAGER, {"cmd": "update", "name": "tester"}),
    (MANAGER, {"cmd": "kill", "name": "tester"}),
    (MANAGER, {"cmd": "logs", "name": "coder", "lines": 0}),
    (CODER, {"cmd": "request_egress", "host": "docs.example:443", "why": "the manual"}),
]
"""The golden pair of a verb is its first use."""

WHOLE_STATE: Final = frozenset({"list_agents"})
"""The reply holds every agent's row; other tests check it."""

TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
COMMIT: Final = re.compile(r"\b[0-9a-f]{40}\b")


def told(hive: HiveProcess) -> dict[str, dict[str, Any]]:
    """The request and first reply of each verb, normalized."""
    found: dict[str, dict[str, Any]] = {}
    lines: dict[str, Lines] = {}
    for speaker, request in STORY:
        if speaker not in lines:
            lines[speaker] = hive.host() if speaker == HOST else hive.agent(speaker)
        lines[speaker].socket.sendall(json.dumps(request).encode() + b"\n")
        reply = steady(json.loads(lines[speaker].line()))
        if speaker != HOST:
            found.setdefault(request["cmd"], {"request": request, "reply": reply})
        if request["cmd"] == "approve":
            hive.event("Spawned", agent="coder")
    for one in lines.values():
        one.close()
    return found


def steady(reply: Any) -> Any:
    """The reply with times and commits replaced by placeholders."""
    match reply:
        case dict():
            return {name: steady(value) for name, value in reply.items()}
        case list():
            return [steady(value) for value in reply]
        case str():
            return COMMIT.sub("<commit>", TIME.sub("<time>", reply))
        case _:
            return reply
