"""The harness's settings: folders, socket, names and keys. `__main__` reads them once from the environment."""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from hive.errors import BadRequest
from hive.names import AgentName

CLI_SETTINGS_FOLDER = ".claude"
"""The Claude Code CLI's own folder in the agent's state; never shared between agents."""
CREDENTIALS_FILE = ".credentials.json"
"""The CLI's login, in that folder."""
TURN_STATS_FILE = "hive-turn-stats.sqlite"
HARNESS_STATE_FILE = "hive-harness.json"
KEY_NAMES = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN")
DEFAULT_IDLE_MINUTES = 10.0


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The harness's own configuration; the agent's is `agent.toml`."""

    name: AgentName
    incarnation: str
    manager: bool
    socket: Path
    state: Path
    config: Path
    has_key: bool
    """Whether the environment holds an API key or token. Its value is never copied."""
    default_model: str | None
    idle_minutes: float

    @property
    def cli_settings(self) -> Path:
        return self.state / CLI_SETTINGS_FOLDER

    @property
    def credentials(self) -> Path:
        return self.cli_settings / CREDENTIALS_FILE


def from_environment(environment: Mapping[str, str] = os.environ) -> Environment:
    """Read the variables set by the daemon and the runtime.

    Raises:
        BadRequest: a variable is missing or invalid.
    """

    def needed(name: str) -> str:
        value = environment.get(name)
        if not value:
            raise BadRequest(f"{name} is not set; the harness is started by the hive daemon, not by hand.")
        return value

    idle = environment.get("HIVE_IDLE_MINUTES") or str(DEFAULT_IDLE_MINUTES)
    try:
        idle_minutes = float(idle)
    except ValueError:
        raise BadRequest(f"HIVE_IDLE_MINUTES is {idle!r}, not a number of minutes.") from None
    return Environment(
        name=needed("HIVE_AGENT_NAME"),
        incarnation=needed("HIVE_INCARNATION"),
        manager=environment.get("HIVE_MANAGER") == "1",
        socket=Path(needed("HIVE_AGENT_SOCKET")),
        state=Path(needed("HIVE_AGENT_STATE")),
        config=Path(needed("HIVE_AGENT_CONFIG")),
        has_key=any(environment.get(name) for name in KEY_NAMES),
        default_model=environment.get("HIVE_MODEL") or None,
        idle_minutes=idle_minutes,
    )
