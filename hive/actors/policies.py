"""What each agent may do outside, computed from hive.toml and the log. Used by the broker's actor."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from hive.actors.journal_clients import BlockingJournalClient
from hive.actors.provision import DUMMY_KEY
from hive.broker import wire
from hive.clock import TimeMs
from hive.errors import BadRequest
from hive.names import AgentName
from hive.paths import Paths
from hive.settings import Settings, secret

ANTHROPIC_URL: Final = "https://api.anthropic.com"
LOGIN_HOSTS: Final = (
    "api.anthropic.com:443",
    "claude.ai:443",
    "claude.com:443",
    "platform.claude.com:443",
    "console.anthropic.com:443",
)
"""What the CLI's own login and its subscription need. Listed where the operator gives no key."""


class Policies:
    """Reads settings and state anew for each policy."""

    def __init__(
        self, paths: Paths, settings: Callable[[], Settings], journal: BlockingJournalClient, model_url: str | None
    ):
        self._paths = paths
        self._settings = settings
        self._journal = journal
        self._model_url = model_url

    def of(self, name: AgentName, now: TimeMs) -> wire.Policy:
        """The policy of one agent. Raises HiveError: the state cannot be read."""
        provider, refusal = self._provider(name)
        return wire.Policy(agent=name, mode="open", allow=(), providers=(provider,), refusal=refusal)

    def folders(self) -> list[Path]:
        """Where the files lie that a policy depends on."""
        files = [self._paths.settings]
        if (key := self._settings().claude.api_key_file) is not None:
            files.append(self._paths.state / key)
        return [file.parent for file in files]

    def _provider(self, name: AgentName) -> tuple[wire.Provider, str | None]:
        claude = self._settings().claude
        if self._model_url is not None:
            key = DUMMY_KEY + name
            return wire.Provider(name="anthropic", url=self._model_url, shape="anthropic", key=key), None
        url = claude.base_url or ANTHROPIC_URL
        if claude.api_key_file is None:
            return wire.Provider(name="anthropic", url=url, shape="anthropic"), None
        try:
            key = secret(self._paths.state, claude.api_key_file)
        except BadRequest as error:
            why = f"hive: the operator's key cannot be used: {error}"
            return wire.Provider(name="anthropic", url=url, shape="anthropic", key=""), why
        return wire.Provider(name="anthropic", url=url, shape="anthropic", key=key), None
