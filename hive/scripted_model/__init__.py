"""A loopback Messages API that replays a script per agent instead of calling the paid model. For the demo and tests."""

from hive.scripted_model.answers import (
    Answer,
    Call,
    Fault,
    Hang,
    Reply,
    Text,
    Usage,
    call,
    calls,
    dropped,
    hang,
    overloaded,
    prompt_too_long,
    rate_limited,
    say,
    server_error,
    unauthorized,
)
from hive.scripted_model.conversation import Conversation, ToolResult
from hive.scripted_model.script import AnyScript, Script, Step
from hive.scripted_model.server import Recorded, ScriptedModel

__all__ = [
    "Answer",
    "AnyScript",
    "Call",
    "Conversation",
    "Fault",
    "Hang",
    "Recorded",
    "Reply",
    "Script",
    "ScriptedModel",
    "Step",
    "Text",
    "ToolResult",
    "Usage",
    "call",
    "calls",
    "dropped",
    "hang",
    "overloaded",
    "prompt_too_long",
    "rate_limited",
    "say",
    "server_error",
    "unauthorized",
]
