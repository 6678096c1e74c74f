"""Serves the tools to the CLI as the in-process MCP server `hive`. Needs the SDK; imported when a turn starts."""

from typing import Any

from claude_agent_sdk import SdkMcpTool, create_sdk_mcp_server
from claude_agent_sdk.types import McpSdkServerConfig

from hive.config.agent_file import OWN_MCP_SERVER
from hive.harness.tools import Tool, Toolbox, offered


def serve(toolbox: Toolbox, *, manager: bool) -> McpSdkServerConfig:
    """Return the server for an agent or for the manager."""
    return create_sdk_mcp_server(OWN_MCP_SERVER, tools=[_as_sdk_tool(tool, toolbox) for tool in offered(manager)])


def _as_sdk_tool(tool: Tool, toolbox: Toolbox) -> SdkMcpTool[Any]:
    async def handle(arguments: dict[str, Any]) -> dict[str, Any]:
        outcome = await toolbox.run(tool, arguments)
        return {"content": [{"type": "text", "text": outcome.text}], "is_error": outcome.is_error}

    return SdkMcpTool(name=tool.name, description=tool.description, input_schema=tool.schema, handler=handle)
