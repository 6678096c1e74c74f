"""How the CLI is started for this agent: prompt, tools, servers, environment. Imported only when a turn is due."""

import os
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from claude_agent_sdk import ClaudeAgentOptions
from claude_agent_sdk.types import McpServerConfig

from hive.config.agent_file import OWN_MCP_SERVER, AgentFile, McpServer
from hive.harness import mcp_server
from hive.harness.environment import KEY_NAMES, Environment
from hive.harness.tools import LIFECYCLE_WAIT_S, Toolbox, offered

CLI_TOOLS = (
    "Agent",
    "Bash",
    "Edit",
    "Glob",
    "Grep",
    "NotebookEdit",
    "Read",
    "Skill",
    "TodoWrite",
    "WebFetch",
    "WebSearch",
    "Write",
)
"""Without `allowed_tools` in agent.toml. Left out: what waits for a person, wakes itself or reaches other sessions."""
NEVER_TOOLS = ("AskUserQuestion", "EnterPlanMode", "ExitPlanMode", "CronCreate", "ScheduleWakeup", "SendMessage")
MCP_TOOL_TIMEOUT_MS = (LIFECYCLE_WAIT_S + 120) * 1000
API_RETRIES = 2
"""The CLI's own, seconds apart; after them the harness backs off, with a badge, without a turn held open."""
PROMPT_LIMIT_BYTES = 96 * 1024
"""The prompt is one argument of the CLI, and Linux ends those at 128 KiB."""
SETTINGS = '{"skipWebFetchPreflight": true}'
"""The broker decides which hosts WebFetch reaches; the CLI's own check would need another host for each."""
MAX_LINE_BYTES = 64 * 1024 * 1024
"""Of the CLI's output: one tool result is one line."""

_CLI_ENVIRONMENT = {
    "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
    # A task that ends later would start a turn that no message asked for and nobody acks.
    "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
    "CLAUDE_CODE_DISABLE_CRON": "1",
    "CLAUDE_CODE_DISABLE_MCP_TASK_BACKGROUND": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_DISABLE_TERMINAL_TITLE": "1",
    "CLAUDE_CODE_MAX_RETRIES": str(API_RETRIES),
    "CLAUDE_CODE_STREAM_CLOSE_TIMEOUT": str(MCP_TOOL_TIMEOUT_MS),
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_TELEMETRY": "1",
    # Newer CLIs hide MCP tools behind a search tool.
    "ENABLE_TOOL_SEARCH": "false",
    "MCP_TOOL_TIMEOUT": str(MCP_TOOL_TIMEOUT_MS),
}


def build(
    env: Environment,
    agent: AgentFile,
    toolbox: Toolbox,
    *,
    model: str | None,
    resume: str | None,
    use_key: bool,
    on_stderr: Callable[[str], None],
) -> ClaudeAgentOptions:
    """Everything the CLI may know. Nothing that the agent writes into its own home counts."""
    hive_tools = [f"mcp__{OWN_MCP_SERVER}__{tool.name}" for tool in offered(env.manager)]
    servers: dict[str, McpServerConfig] = {name: _server(server) for name, server in agent.mcp_servers.items()}
    servers[OWN_MCP_SERVER] = mcp_server.serve(toolbox, manager=env.manager)
    rules = agent.allowed_tools
    names = CLI_TOOLS if rules is None else tuple(dict.fromkeys(rule.partition("(")[0] for rule in rules))
    return ClaudeAgentOptions(
        system_prompt={"type": "preset", "preset": "claude_code", "append": prompt(env, agent)},
        tools=[name for name in names if not name.startswith("mcp__")],
        allowed_tools=[*(rules or CLI_TOOLS), *hive_tools, *(f"mcp__{name}" for name in agent.mcp_servers)],
        disallowed_tools=list(NEVER_TOOLS),
        # Neither mode ever asks. Inside the walls everything goes; what rules of the agent's own leave out is denied.
        permission_mode="bypassPermissions" if rules is None else "dontAsk",
        mcp_servers=servers,
        strict_mcp_config=True,
        setting_sources=[],
        settings=SETTINGS,
        model=model,
        resume=resume,
        cwd=env.state,
        env=environment(env, agent, use_key=use_key),
        max_buffer_size=MAX_LINE_BYTES,
        stderr=on_stderr,
    )


def environment(env: Environment, agent: AgentFile, *, use_key: bool) -> dict[str, str]:
    """What is added to the harness's own environment, which the CLI inherits."""
    added = {**agent.environment, **_CLI_ENVIRONMENT, "CLAUDE_CONFIG_DIR": str(env.cli_settings)}
    if os.geteuid() == 0:
        # As root the CLI skips permissions only where it is told that there are walls.
        added["IS_SANDBOX"] = "1"
    if not use_key:
        added |= dict.fromkeys(KEY_NAMES, "")
    return added


def prompt(env: Environment, agent: AgentFile) -> str:
    """Hive's prompt, then the agent's own from its configuration."""
    name = "manager.md" if env.manager else "agent.md"
    text = resources.files("hive.harness").joinpath("prompts", name).read_text(encoding="utf-8")
    text += f"\nYour name is `{env.name}`.\n"
    own = _own_prompt(env.config / agent.prompt)
    if own:
        text += f"\n# Your own instructions\n\n{own}\n"
    raw = text.encode()
    if len(raw) > PROMPT_LIMIT_BYTES:
        return raw[:PROMPT_LIMIT_BYTES].decode(errors="ignore") + "\n(The rest was too long and is left out.)\n"
    return text


def _own_prompt(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _server(server: McpServer) -> McpServerConfig:
    if server.url is None:
        return {"type": "stdio", "command": server.command or "", "args": list(server.args), "env": dict(server.env)}
    if server.type == "sse":
        return {"type": "sse", "url": server.url, "headers": dict(server.headers)}
    return {"type": "http", "url": server.url, "headers": dict(server.headers)}
