"""Where an agent may connect before any rule: by `hive.toml`, its `agent.toml`, and what it cannot do without."""

import ipaddress
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

import msgspec

from hive import hosts
from hive.config.agent_file import AgentFile
from hive.config.network import network_of
from hive.errors import BadRequest
from hive.settings import Settings

LOGIN_HOSTS: Final = (
    "api.anthropic.com:443",
    "claude.ai:443",
    "claude.com:443",
    "console.anthropic.com:443",
    "platform.claude.com:443",
)
"""What a login of the CLI and its subscription need. Listed unless agents work with the operator's key."""
HTTP_PORTS: Final = {"http": 80, "https": 443}


class Reach(msgspec.Struct, frozen=True):
    mode: str
    """`none`, `listed`, `ask`, `open` or `host`."""
    allow: tuple[str, ...]
    """Of `hive.toml`, or of the narrower list in `agent.toml`."""
    inferred: tuple[str, ...]
    """For the MCP servers and the forge."""
    login: tuple[str, ...]
    """For a login of its own; open in every mode."""
    narrowed: bool
    """`agent.toml` asks for less than `hive.toml` gives."""


def reach(settings: Settings, file: AgentFile, *, logs_in: bool) -> Reach:
    """`logs_in`: the agent has a login of its own, because the operator has no key."""
    network = network_of(settings.network, file.network)
    inferred = tuple(dict.fromkeys(_inferred(settings, file)))
    return Reach(network.mode, network.allow, inferred, LOGIN_HOSTS if logs_in else (), network != settings.network)


def _inferred(settings: Settings, file: AgentFile) -> Iterator[str]:
    urls = [server.url for server in file.mcp_servers.values()] + [settings.forge.url]
    for url in urls:
        if url is not None and (found := _public_entry(url)) is not None:
            yield found


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
