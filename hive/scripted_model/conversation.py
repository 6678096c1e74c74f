"""One request to the Messages API, read the way a script wants it. Used by the player and by callable scripts."""

import re
from typing import Any, Literal

import msgspec

Kind = Literal["turn", "side", "compaction"]

_COMPACTION = re.compile(
    r"create a detailed summary of (the|this|our) conversation|summar(y|ize) .{0,40}conversation", re.I
)
"""The Claude Code CLI asks for a compaction in an ordinary user message of the conversation."""


class ToolResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came back from one call, in the newest user message."""

    tool: str
    """Its name, without `mcp__hive__`."""
    text: str
    is_error: bool


class Conversation(msgspec.Struct, kw_only=True):
    """What a script may look at to decide what to answer."""

    agent: str
    request: dict[str, Any]
    step: int
    """How many answers this agent's script has given before."""
    values: dict[str, str]
    """What earlier steps caught; a callable script may keep its own here."""

    @property
    def latest(self) -> str:
        """All text of the newest user message, tool results included."""
        return "\n".join(_texts(_latest_content(self.request)))

    @property
    def results(self) -> list[ToolResult]:
        """The tool results in the newest user message; empty at the start of a turn."""
        names = {
            block["id"]: bare_tool(str(block["name"]))
            for message in self.request.get("messages", [])
            for block in _blocks(message.get("content"))
            if block.get("type") == "tool_use"
        }
        return [
            ToolResult(
                tool=names.get(block.get("tool_use_id", ""), ""),
                text="\n".join(_texts(_blocks(block.get("content")))),
                is_error=bool(block.get("is_error")),
            )
            for block in _latest_content(self.request)
            if block.get("type") == "tool_result"
        ]

    @property
    def tools(self) -> frozenset[str]:
        """The full names of the tools that the caller offers."""
        return frozenset(str(tool.get("name")) for tool in self.request.get("tools", []))


def kind_of(request: dict[str, Any]) -> Kind:
    """Whether a request is a turn's own, a compaction, or one the CLI makes beside (titles, probes, topic checks)."""
    latest = "\n".join(_texts(_latest_content(request)))
    if _COMPACTION.search(latest[-20_000:]) and "<summary>" in latest:
        return "compaction"
    return "turn" if request.get("tools") else "side"


def bare_tool(name: str) -> str:
    """`send` for `mcp__hive__send`; every other tool keeps its name."""
    return name.removeprefix("mcp__hive__")


def _latest_content(request: dict[str, Any]) -> list[dict[str, Any]]:
    """The blocks of every user message after the model's last word; one of role `system` may follow."""
    newest: list[dict[str, Any]] = []
    for message in reversed(request.get("messages", [])):
        if message.get("role") == "assistant":
            break
        if message.get("role") == "user":
            newest = _blocks(message.get("content")) + newest
    return newest


def _blocks(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [block for block in content or [] if isinstance(block, dict)]


def _texts(blocks: list[dict[str, Any]]) -> list[str]:
    found: list[str] = []
    for block in blocks:
        if block.get("type") == "text":
            found.append(str(block.get("text", "")))
        elif block.get("type") == "tool_result":
            found.extend(_texts(_blocks(block.get("content"))))
    return found
