"""Environment variables that lead an agent's programs to the broker: the model, and hosts with a credential."""

from typing import Final

from hive.config.agent_file import AgentFile
from hive.config.builders import Access
from hive.config.network import network_of
from hive.names import AgentName
from hive.runtimes import network
from hive.runtimes.protocol import Network
from hive.settings import Settings

DUMMY_KEY: Final = "hive-dummy-"
"""With `--model-url` or an operator's key, an agent's key is this and its name: the CLI then asks for no login."""


def broker_environment(name: AgentName, settings: Settings, model_url: str | None) -> dict[str, str]:
    """Set in every sandbox. Holds no secret."""
    environment = {"ANTHROPIC_BASE_URL": f"{network.URL}/model/anthropic"}
    if model_url is not None or settings.claude.api_key_file is not None:
        environment["ANTHROPIC_API_KEY"] = DUMMY_KEY + name
    return {**environment, **_git(credential_hosts(settings, name))}


def build_access(name: AgentName, file: AgentFile, settings: Settings, runtime: str) -> Access:
    """What a build command has of its agent: the variables of `agent.toml`, git's settings, the network."""
    if runtime == "process":
        return Access(file.environment)
    hosts = credential_hosts(settings, name)
    kind: Network = "host" if network_of(settings.network, file.network).mode == "host" else "own"
    return Access({**redirected(file.environment, hosts), **_git(hosts)}, kind)


def credential_hosts(settings: Settings, name: AgentName) -> list[str]:
    """The hosts whose credentials an agent may use."""
    return [host for host, one in settings.credentials.items() if one.agents is None or name in one.agents]


def redirected(environment: dict[str, str], hosts: list[str]) -> dict[str, str]:
    """The variables of agent.toml. Addresses of such hosts (of pip's index or npm's registry) lead to the broker."""
    return {name: _redirected(value, hosts) for name, value in environment.items()}


def _redirected(value: str, hosts: list[str]) -> str:
    for host in hosts:
        for scheme in ("https", "http"):
            if value == f"{scheme}://{host}" or value.startswith(f"{scheme}://{host}/"):
                return _path_of(host) + value.removeprefix(f"{scheme}://{host}").removeprefix("/")
    return value


def _path_of(host: str) -> str:
    return f"{network.URL}/host/{host}/"


def _git(hosts: list[str]) -> dict[str, str]:
    """git's configuration, also for addresses that name ssh: no key of ssh is in the container."""
    pairs = [
        (f"url.{_path_of(host)}.insteadOf", address)
        for host in hosts
        for address in (f"https://{host}/", f"http://{host}/", f"ssh://git@{host}/", f"git@{host}:")
    ]
    if not pairs:
        return {}
    variables = {"GIT_CONFIG_COUNT": str(len(pairs))}
    for index, (key, value) in enumerate(pairs):
        variables |= {f"GIT_CONFIG_KEY_{index}": key, f"GIT_CONFIG_VALUE_{index}": value}
    return variables
