"""Matches destinations with the entries of a policy. Pure."""

import contextlib
import ipaddress
import re
from typing import Final, Literal

from hive.broker.addresses import Address
from hive.broker.wire import Policy

NAME: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
NAME_MAX_CHARS: Final = 253
NO_PORTS: Final[frozenset[int | None]] = frozenset()

Decision = Literal["allow", "deny", "ask"]


class BadHost(Exception):
    """Not a host name or address."""


def canonical(host: str) -> str:
    """Lower case, without a final dot or brackets; an address in its one spelling.

    Raises:
        BadHost.
    """
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host.removesuffix(".").lower()
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        address = None
    if address is not None:
        if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
            raise BadHost(f"{host[:80]!r} names an interface")
        return str(address)
    if len(bare) > NAME_MAX_CHARS or NAME.fullmatch(bare) is None:
        raise BadHost(f"{host[:80]!r} is not a host name")
    return bare


class Rules:
    """The entries of one policy, ready for matching."""

    def __init__(self, policy: Policy) -> None:
        self._mode = policy.mode
        self._allow = _Entries(policy.allow)
        self._deny = _Entries(policy.deny)

    def decide(self, host: str, port: int) -> Decision:
        """For a canonical host."""
        if self._mode == "none" or self._deny.cover(host, port):
            return "deny"
        if self._mode == "open" or self._allow.cover(host, port):
            return "allow"
        return "ask" if self._mode == "ask" else "deny"

    def lists_address(self, address: Address, port: int) -> bool:
        """Whether an entry names the address itself, which opens private ones."""
        return self._allow.names(str(address), port) and not self._deny.names(str(address), port)

    def denies_address(self, address: Address, port: int) -> bool:
        return self._deny.names(str(address), port)


class _Entries:
    def __init__(self, entries: tuple[str, ...]) -> None:
        self._hosts: dict[str, frozenset[int | None]] = {}
        self._domains: dict[str, frozenset[int | None]] = {}
        for entry in entries:
            with contextlib.suppress(BadHost):  # The daemon checks entries; one bad entry must not void the others.
                host, port = split(entry)
                if host.startswith("*."):
                    name, table = canonical(host[2:]), self._domains
                else:
                    name, table = canonical(host), self._hosts
                table[name] = table.get(name, NO_PORTS) | {port}

    def names(self, host: str, port: int) -> bool:
        ports = self._hosts.get(host, NO_PORTS)
        return port in ports or None in ports

    def cover(self, host: str, port: int) -> bool:
        if self.names(host, port):
            return True
        domain = host
        while domain:
            _, _, domain = domain.partition(".")
            ports = self._domains.get(domain, NO_PORTS)
            if port in ports or None in ports:
                return True
        return False


def split(entry: str) -> tuple[str, int | None]:
    """Host and port of `host`, `host:port`, `[v6]:port` or a bare IPv6 address.

    Raises:
        BadHost.
    """
    if entry.count(":") > 1 and not entry.startswith("["):
        return entry, None
    host, colon, port = entry.rpartition(":")
    if not colon or entry.endswith("]"):
        return entry, None
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        raise BadHost(f"{entry[:80]!r} has no valid port")
    return host, int(port)
