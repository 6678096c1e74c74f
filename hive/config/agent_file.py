"""`agent.toml`: how an agent runs. The daemon and the harness read it. It holds no secrets."""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from hive import hosts
from hive.errors import BadRequest
from hive.names import AGENT_NAME, EVERYONE, OPERATOR, AgentName, address, is_hive_name

AGENT_FILE = "agent.toml"
DEFAULT_PROMPT = "prompt.md"
OWN_MCP_SERVER = "hive"
"""Reserved: the harness serves hive's own tools under this name."""
MCP_SERVER_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SECRET_NAMES = frozenset({"ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"})
"""Credentials come from hive.toml or a login. The repository is shown, mirrored and never deleted."""
RESERVED_ENVIRONMENT = re.compile(r"HIVE_.*|CLAUDE_CONFIG_DIR|ANTHROPIC_BASE_URL")
AGENT_FILE_LIMIT_BYTES = 256 * 1024
AGENT_NETWORK_MODES = ("none", "listed", "ask", "open")
"""The mode `host` removes the sandbox's network walls; only the operator's hive.toml can set it."""
BUDGET_HOURS_MAX = 24 * 30
"""The daemon keeps usage sums for one month."""


NO_MAXIMUM: Mapping[str, int] = {}


_Table = TypeVar("_Table", bound=msgspec.Struct)


class McpServer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An extra MCP server: a program to start or a URL to connect to."""

    command: str | None = None
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    url: str | None = None
    type: str = "http"
    """Transport of a server with a `url`: `http` or `sse`."""
    headers: dict[str, str] = {}


class AgentLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Resource limits of the agent. An absent limit is the host's default or unlimited."""

    memory_mb: int | None = None
    processes: int | None = None
    """Processes and threads."""
    cpu_percent: int | None = None
    """100 is one core."""
    disk_mb: int | None = None
    """Of `/state` and the proposed repository together."""
    turn_minutes: float | None = None
    """A longer turn is cancelled and its messages are requeued."""
    budget_hours: int = 24
    """The window of the two budgets below."""
    budget_tokens: int | None = None
    """Input, output and cache tokens. Reaching the budget pauses the agent until the window has room."""
    budget_turns: int | None = None
    events_per_minute: int | None = None
    """The agent's share of the log; the host's maximum: hive.toml's value, else RAISE_MAX times the default."""
    burst_events: int | None = None
    kib_per_minute: int | None = None
    burst_kib: int | None = None
    budget_usd: float | None = None
    """Dollars, by the prices in the host's hive.toml."""


class AgentNetwork(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Narrows the host's network settings. The build refuses what exceeds them."""

    mode: str | None = None
    """`none`, `listed`, `ask` or `open`. Absent: the host's mode."""
    allow: tuple[str, ...] | None = None
    """The hosts of the host's list that this agent uses: HOST, HOST:PORT or *.DOMAIN. Absent: all of them."""


class AgentFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file; every key is optional."""

    model: str | None = None
    prompt: str = DEFAULT_PROMPT
    """Path inside the repository."""
    allowed_recipients: tuple[AgentName, ...] | None = None
    """Agents that this agent may write to, besides the manager and the operator. Absent: all."""
    allowed_tools: tuple[str, ...] | None = None
    """Claude Code tools or permission rules, such as `Read` or `Bash(git *)`. Absent: the harness's list."""
    environment: dict[str, str] = {}
    mcp_servers: dict[str, McpServer] = {}
    limits: AgentLimits = AgentLimits()
    network: AgentNetwork = AgentNetwork()
    build: str | None = None
    """A shell command that runs in a sandbox before the configuration is deployed."""


def load(folder: Path, maximum: Mapping[str, int] = NO_MAXIMUM) -> AgentFile:
    """Load the agent file of a configuration folder. Without a file, return the defaults.

    `maximum` has the highest value that this host allows for each key of `[limits]`.

    Raises:
        BadRequest: one line naming the file, the line and the key.
    """
    path = folder / AGENT_FILE
    try:
        # The tree is untrusted: a link could point at any file that the daemon can read.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            raw = file.read(AGENT_FILE_LIMIT_BYTES + 1)
    except FileNotFoundError:
        return AgentFile()
    except OSError as error:
        raise BadRequest(f"{path}: cannot be read: {error.strerror}.") from error
    return parse(raw, str(path), maximum)


def parse(raw: bytes, name: str = AGENT_FILE, maximum: Mapping[str, int] = NO_MAXIMUM) -> AgentFile:
    """Decode and check. Errors call the file `name`; `maximum` as for `load`.

    Raises:
        BadRequest: one line naming the file, the line and the key.
    """
    if len(raw) > AGENT_FILE_LIMIT_BYTES:
        raise BadRequest(f"{name}: larger than {AGENT_FILE_LIMIT_BYTES} bytes.")
    try:
        text = raw.decode()
        tables = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise BadRequest(f"{name}: not UTF-8 at byte {error.start}.") from error
    except tomllib.TOMLDecodeError as error:
        raise BadRequest(f"{name}: not TOML: {error}.") from error
    source = _Source(name, text)
    servers = tables.pop("mcp_servers", {})
    if not isinstance(servers, dict):
        raise source.bad(("mcp_servers",), "write each server as its own table, [mcp_servers.NAME]")
    whole = source.convert(tables, AgentFile, ())
    named = {key: source.convert(value, McpServer, ("mcp_servers", key)) for key, value in servers.items()}
    _check_servers(named, source)
    _check_values(whole, source)
    _check_limits(whole.limits, source, maximum)
    return msgspec.structs.replace(whole, mcp_servers=named)


def _check_servers(servers: dict[str, McpServer], source: "_Source") -> None:
    for name, server in servers.items():
        place = ("mcp_servers", name)
        if name == OWN_MCP_SERVER:
            raise source.bad(place, "the name hive is reserved for hive's own tools; choose another")
        if MCP_SERVER_NAME.fullmatch(name) is None:
            raise source.bad(place, "a server name has at most 64 letters, digits, - and _")
        if (server.command is None) == (server.url is None):
            raise source.bad(place, "give either command or url")
        if server.type not in ("http", "sse"):
            raise source.bad((*place, "type"), 'must be "http" or "sse"')


def _check_values(whole: AgentFile, source: "_Source") -> None:
    for name in whole.environment:
        place = ("environment", name)
        if name in SECRET_NAMES:
            raise source.bad(place, "a secret must not be in the repository; put it in the host's hive.toml")
        if ENVIRONMENT_NAME.fullmatch(name) is None or RESERVED_ENVIRONMENT.fullmatch(name):
            raise source.bad(place, "this name cannot be set here")
    for recipient in whole.allowed_recipients or ():
        name, hive = address(recipient)
        is_name = name == OPERATOR or AGENT_NAME.fullmatch(name) is not None or (name == EVERYONE and hive is not None)
        if not is_name or (hive is not None and not is_hive_name(hive)):
            what = "is not an agent's name, an address AGENT@HIVE, or *@HIVE"
            raise source.bad(("allowed_recipients",), f"{recipient!r} {what}")
    prompt = Path(whole.prompt)
    if prompt.is_absolute() or ".." in prompt.parts:
        raise source.bad(("prompt",), "must be a path inside the repository")
    if whole.network.mode is not None and whole.network.mode not in AGENT_NETWORK_MODES:
        raise source.bad(("network", "mode"), f"must be one of {', '.join(AGENT_NETWORK_MODES)}")
    for text in whole.network.allow or ():
        try:
            hosts.entry(text)
        except BadRequest as error:
            raise source.bad(("network", "allow"), str(error).removesuffix(".")) from None


def _check_limits(limits: AgentLimits, source: "_Source", maximum: Mapping[str, int]) -> None:
    for field in AgentLimits.__struct_fields__:
        value = getattr(limits, field)
        if value is None:
            continue
        if value <= 0:
            raise source.bad(("limits", field), "must be more than 0")
        if value > maximum.get(field, value):
            why = f"this host allows at most {maximum[field]}; lower it, or raise limits.{field} in hive.toml"
            raise source.bad(("limits", field), why)
    if limits.budget_hours > BUDGET_HOURS_MAX:
        raise source.bad(("limits", "budget_hours"), f"must be at most {BUDGET_HOURS_MAX}")


class _Source:
    """The text of the file, used to locate errors."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._lines = text.splitlines()

    def bad(self, place: tuple[str, ...], why: str) -> BadRequest:
        return BadRequest(f"{self._name}:{self._line_of(place)}: {'.'.join(place)}: {why}.")

    def convert(self, value: Any, type: type[_Table], place: tuple[str, ...]) -> _Table:
        try:
            return msgspec.convert(value, type)
        except msgspec.ValidationError as error:
            raise self._explained(str(error), type, place) from error

    def _explained(self, message: str, type: type[msgspec.Struct], place: tuple[str, ...]) -> BadRequest:
        """msgspec says `Object contains unknown field `x` - at `$.limits``; add the key and a guess."""
        what, _, where = message.partition(" - at ")
        path = tuple(re.findall(r"\.(\w+)", where))
        unknown = re.search(r"unknown field `(.+)`", what)
        if unknown is None:
            return self.bad((*place, *path), what)
        known = {("limits",): AgentLimits, ("network",): AgentNetwork}.get(path, type)
        close = difflib.get_close_matches(unknown[1], known.__struct_fields__, n=1)
        guess = f"; did you mean {close[0]}" if close else f"; known are {', '.join(known.__struct_fields__)}"
        return self.bad((*place, *path, unknown[1]), f"unknown key{guess}")

    def _line_of(self, place: tuple[str, ...]) -> int:
        """The line number, from 1, of the longest prefix of `place` that the file has."""
        for size in range(len(place), 0, -1):
            found = self._find(place[:size])
            if found is not None:
                return found
        return 1

    def _find(self, place: tuple[str, ...]) -> int | None:
        table: tuple[str, ...] = ()
        for number, line in enumerate(self._lines, 1):
            header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line)
            if header:
                table = tuple(part.strip().strip("\"'") for part in header[1].split("."))
                if table == place:
                    return number
                continue
            key = re.match(r"\s*([\w.\"'-]+)\s*=", line)
            if key and (*table, *(part.strip("\"'") for part in key[1].split("."))) == place:
                return number
        return None
