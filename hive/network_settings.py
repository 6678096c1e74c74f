"""The parts of `hive.toml` about the network: what agents may reach, prices of models, credentials for hosts."""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from hive import hosts
from hive.errors import BadRequest
from hive.names import AGENT_NAME
from hive.turn_columns import Price

NETWORK_MODES: Final = ("none", "listed", "ask", "open", "host")
"""From the narrowest to the widest."""
PRICE_MAX: Final = 1_000_000
"""Dollars per million tokens."""
HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,64}(: ?[ -~]{1,64})?")
METHOD: Final = re.compile(r"[A-Z]{1,16}")


class NetworkSettings(msgspec.Struct, frozen=True, kw_only=True):
    mode: str = "ask"
    """`none`; `listed` hosts; `ask` about other hosts; `open`: every public address; `host`: no network walls."""
    allow: tuple[str, ...] = ()
    """Hosts for every agent: HOST, HOST:PORT or *.DOMAIN. A private address must be listed as an address."""


class CredentialSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A secret that the broker adds to requests for one host; agents never hold it."""

    file: str = ""
    """Relative to the state folder; mode 0600."""
    header: str | None = None
    """The header that carries the secret, such as `PRIVATE-TOKEN`, or with a prefix: `Authorization: Bearer`."""
    user: str | None = None
    """The user name for basic authentication, instead of `header`."""
    url: str | None = None
    """Scheme and host of the real server, if it is not https://HOST."""
    methods: tuple[str, ...] | None = None
    """Allowed methods, such as `GET`. Absent: all."""
    paths: tuple[str, ...] | None = None
    """Allowed path prefixes, such as `/group/project`. Absent: all."""
    agents: tuple[str, ...] | None = None
    """Agents that may use it. Absent: all."""


def check_network(network: NetworkSettings, name: str) -> None:
    """Raises BadRequest: one line that begins with `name`, the name of the file."""
    if network.mode not in NETWORK_MODES:
        raise BadRequest(f"{name}: network.mode must be one of {', '.join(NETWORK_MODES)}, not {network.mode!r}.")
    for text in network.allow:
        try:
            hosts.entry(text)
        except BadRequest as error:
            raise BadRequest(f"{name}: network.allow: {error}") from None


def check_prices(prices: Mapping[str, Price], name: str) -> None:
    """Raises BadRequest: a price is not a number of dollars."""
    for model, price in prices.items():
        for kind in Price.__struct_fields__:
            dollars = getattr(price, kind)
            if dollars is not None and not 0 <= dollars <= PRICE_MAX:  # A NaN fails this comparison, too.
                raise BadRequest(f'{name}: prices."{model}".{kind} must be from 0 to {PRICE_MAX} dollars.')


def check_credentials(credentials: Mapping[str, CredentialSettings], name: str) -> None:
    """Raises BadRequest: a table lacks a key, or a key is wrong."""
    for host, credential in credentials.items():
        _check_credential(host, credential, f'{name}: credentials."{host}"')


def _check_credential(host: str, credential: CredentialSettings, what: str) -> None:
    try:
        is_one_host = not hosts.entry(host).host.startswith("*.")
    except BadRequest:
        is_one_host = False
    if not is_one_host:
        raise BadRequest(f"{what}: the name of the table must be HOST or HOST:PORT.")
    if not credential.file:
        raise BadRequest(f"{what}.file is missing; name a file with the secret, relative to the state folder.")
    if (credential.header is None) == (credential.user is None):
        raise BadRequest(f"{what} needs either header or user.")
    if credential.header is not None and HEADER.fullmatch(credential.header) is None:
        raise BadRequest(f"{what}.header must be NAME, or NAME: PREFIX such as `Authorization: Bearer`.")
    if credential.user is not None and (":" in credential.user or not credential.user.isprintable()):
        raise BadRequest(f"{what}.user must not contain a colon or control characters.")
    if any(METHOD.fullmatch(method) is None for method in credential.methods or ()):
        raise BadRequest(f'{what}.methods must be upper-case methods such as ["GET", "POST"].')
    if any(not path.startswith("/") for path in credential.paths or ()):
        raise BadRequest(f"{what}.paths must be prefixes that begin with /.")
    if any(AGENT_NAME.fullmatch(agent) is None for agent in credential.agents or ()):
        raise BadRequest(f"{what}.agents must be names of agents.")
