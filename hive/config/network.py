"""The network of one agent: the host's settings, narrowed by its `agent.toml`. Used by the build and the broker."""

from collections.abc import Iterable

from hive.config.agent_file import AgentFile, AgentNetwork
from hive.errors import BadRequest
from hive.hosts import Entry, entry, is_covered
from hive.network_settings import NETWORK_MODES, NetworkSettings
from hive.settings import Settings


def network_of(host: NetworkSettings, agent: AgentNetwork) -> NetworkSettings:
    """The mode and the listed hosts that hold for an agent. Never wider than the host's settings."""
    mode = host.mode if agent.mode is None else min(host.mode, agent.mode, key=NETWORK_MODES.index)
    if agent.allow is None:
        return NetworkSettings(mode=mode, allow=host.allow)
    return NetworkSettings(mode=mode, allow=tuple(text for text in agent.allow if _is_offered(host, text)))


def refuse_beyond(settings: Settings, file: AgentFile) -> None:
    """Refuse an agent's file that asks for more than the host's settings give.

    Raises:
        BadRequest: one line with the key, and what the operator can do.
    """
    host, agent = settings.network, file.network
    if agent.mode is not None and NETWORK_MODES.index(agent.mode) > NETWORK_MODES.index(host.mode):
        raise BadRequest(
            f"agent.toml: network.mode = {agent.mode!r} is wider than the host's mode {host.mode!r}. Remove it, "
            "or set network.mode in hive.toml."
        )
    beyond = [text for text in agent.allow or () if not _is_offered(host, text)]
    if beyond:
        raise BadRequest(
            f"agent.toml: network.allow lists {', '.join(beyond)}, which hive.toml does not. "
            "Remove it, add it to network.allow in hive.toml, or run `hive egress allow`."
        )
    if file.limits.budget_usd is not None and not settings.prices:
        raise BadRequest(
            'agent.toml: limits.budget_usd needs prices. Add [prices."MODEL"] to hive.toml, or use budget_tokens.'
        )


def _is_offered(host: NetworkSettings, text: str) -> bool:
    """Whether an entry is within the host's list. In the open modes, every entry is."""
    wanted = entry(text)
    return host.mode in ("open", "host") or is_covered(_entries(host.allow), wanted.host, wanted.port)


def _entries(texts: Iterable[str]) -> list[Entry]:
    return [entry(text) for text in texts]
