"""What each agent may do outside, computed from hive.toml, its agent.toml and the log. Used by the broker's actor."""

import base64
import ipaddress
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import structlog

from hive import hosts
from hive.actors.broker_environment import DUMMY_KEY, credential_hosts
from hive.actors.journal_clients import BlockingJournalClient
from hive.broker import wire
from hive.clock import TimeMs
from hive.config import agent_file
from hive.config.agent_file import AgentFile
from hive.config.network import network_of
from hive.config.repositories import Repositories
from hive.deciders.budgets import budget_refusal
from hive.errors import BadRequest
from hive.events.egress import ModelUsed
from hive.names import AgentName
from hive.network_settings import CredentialSettings
from hive.paths import Paths
from hive.projections.agents import Agent
from hive.projections.egress import Entries
from hive.projections.hive import Hive
from hive.settings import Settings, secret

log = structlog.get_logger()

ANTHROPIC_URL: Final = "https://api.anthropic.com"
LOGIN_HOSTS: Final = (
    "api.anthropic.com:443",
    "claude.ai:443",
    "claude.com:443",
    "console.anthropic.com:443",
    "platform.claude.com:443",
)
"""What a login of the CLI and its subscription need. Listed unless agents work with the operator's key."""
HTTP_PORTS: Final = {"http": 80, "https": 443}


class Policies:
    """Reads settings, files and state anew for each policy."""

    def __init__(
        self,
        paths: Paths,
        settings: Callable[[], Settings],
        repositories: Repositories,
        journal: BlockingJournalClient,
        model_url: str | None,
    ):
        self._paths = paths
        self._settings = settings
        self._repositories = repositories
        self._journal = journal
        self._model_url = model_url

    def of(self, name: AgentName, now: TimeMs, pending: Sequence[ModelUsed]) -> tuple[wire.Policy, TimeMs | None]:
        """The policy of one agent, and when it changes by itself. `pending` is metered use that is not recorded yet.

        Raises:
            HiveError: the state cannot be read.
        """

        def read(hive: Hive) -> tuple[Agent | None, Entries, TimeMs | None, str | None]:
            rules, until = hive.egress.entries_for(name, now), hive.egress.next_end(name, now)
            return hive.agents.living_one(name), rules, until, budget_refusal(hive, name, now, pending)

        row, rules, until, refusal = self._journal.read(read)
        settings, file = self._settings(), self._agent_file(row)
        network = network_of(settings.network, file.network)
        provider, unusable = self._provider(name, settings)
        allow = [*network.allow, *map(str, rules.allow), *self._inferred(settings, file, provider)]
        policy = wire.Policy(
            agent=name,
            # With the host's network the broker serves the model alone, and no proxy variable leads here.
            mode="open" if network.mode == "host" else _mode(network.mode),
            allow=tuple(dict.fromkeys(allow)),
            deny=tuple(map(str, rules.deny)),
            providers=(provider,),
            credentials=tuple(self._credentials(name, settings)),
            refusal=refusal or unusable,
        )
        return policy, until

    def files(self) -> list[Path]:
        """The files that policies depend on, and what they link to."""
        settings = self._settings()
        named = [settings.claude.api_key_file, *(one.file for one in settings.credentials.values())]
        files = [self._paths.settings, *(self._paths.state / file for file in named if file is not None)]
        return [*files, *(file.resolve() for file in files if file.is_symlink())]

    def _agent_file(self, row: Agent | None) -> AgentFile:
        if row is None or row.revision is None:
            return AgentFile()
        try:
            return agent_file.load(self._repositories.generation_folder(row.name, row.revision))
        except BadRequest as error:
            log.warning("broker.bad_agent_file", agent=row.name, error=str(error))
            return AgentFile()

    def _provider(self, name: AgentName, settings: Settings) -> tuple[wire.Provider, str | None]:
        """The model API, and why it cannot be used."""
        claude = settings.claude
        if self._model_url is not None:
            return wire.Provider(name="anthropic", url=self._model_url, shape="anthropic", key=DUMMY_KEY + name), None
        url = claude.base_url or ANTHROPIC_URL
        if claude.api_key_file is None:
            return wire.Provider(name="anthropic", url=url, shape="anthropic"), None
        try:
            key = secret(self._paths.state, claude.api_key_file)
        except BadRequest as error:
            log.warning("broker.no_key", error=str(error))
            # An empty key, so that no header of the agent's passes in its place.
            none = wire.Provider(name="anthropic", url=url, shape="anthropic", key="")
            return none, "hive: the operator's API key cannot be read. Tell the operator; `hive doctor` says more."
        return wire.Provider(name="anthropic", url=url, shape="anthropic", key=key), None

    def _inferred(self, settings: Settings, file: AgentFile, provider: wire.Provider) -> Iterable[str]:
        """What the agent needs for its engine, its MCP servers and the forge, so that it works without a question."""
        if provider.key is None:
            yield from LOGIN_HOSTS
        urls = [server.url for server in file.mcp_servers.values()] + [settings.forge.url]
        for url in urls:
            if url is not None and (found := _public_entry(url)) is not None:
                yield found

    def _credentials(self, name: AgentName, settings: Settings) -> Iterable[wire.Credential]:
        for host in credential_hosts(settings, name):
            one = settings.credentials[host]
            try:
                value = secret(self._paths.state, one.file)
            except BadRequest as error:
                log.warning("broker.no_credential", host=host, error=str(error))
                continue
            yield _credential(host, one, value)


def _credential(host: str, one: CredentialSettings, value: str) -> wire.Credential:
    if one.user is not None:
        encoded = base64.b64encode(f"{one.user}:{value}".encode()).decode()
        header, sent, secrets = "Authorization", f"Basic {encoded}", [value, encoded]
    else:
        header, _, prefix = (one.header or "Authorization").partition(":")
        sent, secrets = f"{prefix.strip()} {value}".strip(), [value]
    return wire.Credential(
        host=host,
        url=one.url or f"https://{host}",
        header=header,
        value=sent,
        secrets=tuple(secrets),
        methods=one.methods,
        paths=one.paths,
    )


def _mode(mode: str) -> wire.Mode:
    match mode:
        case "none" | "listed" | "ask" | "open":
            return mode
        case _:
            return "none"


def _public_entry(url: str) -> str | None:
    """The entry of a URL's host. A private address is not inferred: the operator lists it."""
    parts = urlsplit(url)
    try:
        host, port = hosts.canonical(parts.hostname or ""), parts.port or HTTP_PORTS.get(parts.scheme, 443)
    except (BadRequest, ValueError):
        return None
    try:
        is_public = ipaddress.ip_address(host).is_global
    except ValueError:
        is_public = host != "localhost"
    return hosts.written(host, port) if is_public else None
