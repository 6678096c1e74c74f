"""Reads the CLI's messages during one turn: collects the turn's statistics and writes the live stream."""

import collections
import json
from typing import Any

from claude_agent_sdk import (
    AssistantMessage,
    Message,
    RateLimitEvent,
    ResultMessage,
    SystemMessage,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
)

from hive.config.agent_file import OWN_MCP_SERVER
from hive.harness.live import Live
from hive.harness.stats import TurnRow
from hive.turn_columns import TOKEN_KINDS

SYNTHETIC_MODEL = "<synthetic>"
"""Model name of error messages that the CLI itself creates."""
MS_PER_S = 1000


class TurnStatistics:
    """Collects the statistics of one turn."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._calls: dict[str, str] = {}
        self.model: str | None = None
        self.session_id: str | None = None
        self.limited_until_ms: int | None = None
        self.compacted = False
        self._results: list[ResultMessage] = []

    def see(self, message: Message, now_ms: int) -> None:
        """Process one message."""
        match message:
            case AssistantMessage():
                self._assistant(message)
            case UserMessage(content=list() as blocks):
                for block in blocks:
                    if isinstance(block, ToolResultBlock):
                        self._tool_result(block)
            case SystemMessage():
                self._system(message, now_ms)
            case RateLimitEvent(rate_limit_info=info) if info.status == "rejected" and info.resets_at:
                self.limited_until_ms = round(info.resets_at * MS_PER_S)
            case ResultMessage():
                self.session_id = message.session_id
                self._results.append(message)
            case _:
                pass

    def fill(self, row: TurnRow) -> None:
        """Write the statistics to the row; tokens only if the CLI reported a successful request."""
        counts = collections.Counter(self._calls.values())
        row.model = self.model or row.model
        row.tool_call_count = sum(counts.values())
        row.tool_calls_json = json.dumps(counts, separators=(",", ":"))
        usages = [result.usage for result in self._results if result.usage]
        if not usages or not any(_tokens(usage, "input_tokens", "output_tokens") for usage in usages):
            return
        for column, kind in TOKEN_KINDS.items():
            setattr(row, column, sum(_tokens(usage, kind.usage) for usage in usages))

    def _assistant(self, message: AssistantMessage) -> None:
        if message.model != SYNTHETIC_MODEL and message.parent_tool_use_id is None:
            self.model = message.model
        for block in message.content:
            if isinstance(block, TextBlock):
                self._live.line("text", text=block.text)
            elif isinstance(block, ToolUseBlock) and block.id not in self._calls:
                tool = block.name.removeprefix(f"mcp__{OWN_MCP_SERVER}__")
                self._calls[block.id] = tool
                self._live.line("tool_call", id=block.id, tool=tool, arguments=json.dumps(block.input))

    def _tool_result(self, block: ToolResultBlock) -> None:
        text = _result_text(block.content)
        self._live.line(
            "tool_result",
            id=block.tool_use_id,
            tool=self._calls.get(block.tool_use_id),
            text=text,
            lines=text.count("\n") + 1,
            is_error=bool(block.is_error),
        )

    def _system(self, message: SystemMessage, now_ms: int) -> None:
        data = message.data
        if message.subtype == "init":
            self.session_id = data.get("session_id") or self.session_id
        elif message.subtype == "compact_boundary":
            self.compacted = True
            self._live.notice("The conversation was compacted.")
        elif message.subtype == "api_retry":
            status, delay_ms = data.get("error_status"), data.get("retry_delay_ms") or 0
            self._live.notice(f"The API answered {status or 'nothing'}; trying again in {delay_ms / MS_PER_S:.1f} s.")
            if status == 429:
                # With an API key the CLI reports the end of the limit only by this delay (from retry-after).
                self.limited_until_ms = now_ms + int(delay_ms)


def _tokens(usage: dict[str, Any], *names: str) -> int:
    return sum(int(usage.get(name) or 0) for name in names)


def _result_text(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", f"({part.get('type')})")) for part in content or [])
