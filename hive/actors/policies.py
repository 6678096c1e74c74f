"""What each agent may do outside, computed from hive.toml, its agent.toml and the log. Used by the broker's actor."""

import base64
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import structlog

from hive.actors.broker_environment import DUMMY_KEY, credential_hosts
from hive.actors.journal_clients import BlockingJournalClient
from hive.actors.reach import reach
from hive.broker import wire
from hive.clock import TimeMs
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
        settings = self._settings()
        provider, unusable = self._provider(name, settings)
        file = self._repositories.running_file(name, None if row is None else row.revision)
        may = reach(settings, file, logs_in=provider.key is None)
        allow = [*may.allow, *map(str, rules.allow), *may.inferred]
        policy = wire.Policy(
            agent=name,
            # With the host's network the broker serves the model alone, and no proxy variable leads here.
            mode="open" if may.mode == "host" else _mode(may.mode),
            allow=tuple(dict.fromkeys(allow)),
            login=may.login,
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
