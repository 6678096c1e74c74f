"""One request to the Messages API, parsed for scripts. Used by the player and by callable scripts."""

import re
from typing import Any, Literal

import msgspec

Kind = Literal["turn", "side", "compaction"]

_COMPACTION = re.compile(
    r"create a detailed summary of (the|this|our) conversation|summar(y|ize) .{0,40}conversation", re.I
)
"""The Claude Code CLI requests a compaction with an ordinary user message."""


class ToolResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one tool call, from the newest user message."""

    tool: str
    """Its name, without `mcp__hive__`."""
    text: str
    is_error: bool


class Conversation(msgspec.Struct, kw_only=True):
    """What a script can use to choose its answer."""

    agent: str
    request: dict[str, Any]
    step: int
    """How many answers this agent's script has already given."""
    values: dict[str, str]
    """Values captured by earlier steps; a callable script may store its own."""

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
        """Full names of the tools in the request."""
        return frozenset(str(tool.get("name")) for tool in self.request.get("tools", []))


def kind_of(request: dict[str, Any]) -> Kind:
    """The kind of request: of a turn, a compaction, or a side request of the CLI (title, probe, topic check)."""
    latest = "\n".join(_texts(_latest_content(request)))
    if _COMPACTION.search(latest[-20_000:]) and "<summary>" in latest:
        return "compaction"
    return "turn" if request.get("tools") else "side"


def bare_tool(name: str) -> str:
    """`send` for `mcp__hive__send`; other names are unchanged."""
    return name.removeprefix("mcp__hive__")


def _latest_content(request: dict[str, Any]) -> list[dict[str, Any]]:
    """The blocks of all user messages after the model's last message; a `system` message may follow."""
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
