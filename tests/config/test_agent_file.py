"""`agent.toml`: defaults, every key, and errors that name file, line and key."""

from pathlib import Path

import pytest

from hive.config.agent_file import AgentFile, AgentLimits, McpServer, load, parse
from hive.errors import BadRequest

EVERYTHING = b"""
model = "sonnet"
prompt = "prompts/coder.md"
allowed_recipients = ["reviewer", "operator"]
allowed_tools = ["Read", "Bash(git *)"]
build = "make"

[environment]
LANG = "C.UTF-8"

[mcp_servers.tickets]
command = "tickets-mcp"
args = ["--read-only"]

[mcp_servers.search]
url = "http://127.0.0.1:9000/mcp"

[limits]
memory_mb = 2048
processes = 200
turn_minutes = 20
budget_hours = 4
budget_tokens = 2_000_000
budget_turns = 50
"""


def test_absent_or_empty_file_gives_defaults(tmp_path: Path) -> None:
    assert load(tmp_path) == AgentFile()
    (tmp_path / "agent.toml").write_text("")
    assert load(tmp_path) == AgentFile()


def test_every_key_is_parsed() -> None:
    assert parse(EVERYTHING) == AgentFile(
        model="sonnet",
        prompt="prompts/coder.md",
        allowed_recipients=("reviewer", "operator"),
        allowed_tools=("Read", "Bash(git *)"),
        build="make",
        environment={"LANG": "C.UTF-8"},
        mcp_servers={
            "tickets": McpServer(command="tickets-mcp", args=("--read-only",)),
            "search": McpServer(url="http://127.0.0.1:9000/mcp"),
        },
        limits=AgentLimits(
            memory_mb=2048,
            processes=200,
            turn_minutes=20,
            budget_hours=4,
            budget_tokens=2_000_000,
            budget_turns=50,
        ),
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\nmodle = 'x'", "agent.toml:2: modle: unknown key; did you mean model."),
        ("[limits]\n\nturn_minute = 3", "agent.toml:3: limits.turn_minute: unknown key; did you mean turn_minutes."),
        ("[limits]\nprocesses = 'many'", "agent.toml:2: limits.processes: Expected `int | null`, got `str`."),
        ("limits.processes = 0", "agent.toml:1: limits.processes: must be more than 0."),
        ("model = [", "agent.toml: not TOML"),
        (
            "[mcp_servers.hive]\ncommand = 'x'",
            "agent.toml:1: mcp_servers.hive: the name hive is reserved for hive's own",
        ),
        ("\n[mcp_servers.a]\ncomand = 'x'", "agent.toml:3: mcp_servers.a.comand: unknown key; did you mean command."),
        ("[mcp_servers.a]\nargs = []", "agent.toml:1: mcp_servers.a: give either command or url."),
        ("mcp_servers = 3", "agent.toml:1: mcp_servers: write each server as its own table"),
        ("[environment]\nANTHROPIC_API_KEY = 'x'", "agent.toml:2: environment.ANTHROPIC_API_KEY: a secret must not"),
        ("[environment]\nHIVE_AGENT_SOCKET = 'x'", "agent.toml:2: environment.HIVE_AGENT_SOCKET: this name cannot"),
        ("prompt = '../../etc/passwd'", "agent.toml:1: prompt: must be a path inside the repository."),
        (
            "allowed_recipients = ['Not A Name']",
            "agent.toml:1: allowed_recipients: 'Not A Name' is not an agent's name, an address AGENT@HIVE, or *@HIVE",
        ),
    ],
)
def test_error_names_file_line_and_key(text: str, says: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(text.encode())
    assert str(refused.value).startswith(says)
    assert "\n" not in str(refused.value)


def test_error_of_invalid_file_names_its_path(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_bytes(b"\xff")
    with pytest.raises(BadRequest, match=r"/agent\.toml: not UTF-8 at byte 0"):
        load(tmp_path)


def test_agent_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("model = 'x'")
    (tmp_path / "agent.toml").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadRequest, match="cannot be read"):
        load(tmp_path)
