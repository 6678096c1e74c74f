"""Matches destinations with the entries of a policy. Pure."""

import contextlib
from collections.abc import Iterable
from typing import Literal

from hive import hosts
from hive.broker.addresses import Address
from hive.broker.wire import Policy
from hive.errors import BadRequest
from hive.hosts import Entry

Decision = Literal["allow", "deny", "ask"]


class Rules:
    """The entries of one policy, ready for matching. Hosts are canonical, see `hive.hosts`."""

    def __init__(self, policy: Policy) -> None:
        self._mode = policy.mode
        self._allow = _Entries(policy.allow)
        self._login = _Entries(policy.login)
        self._deny = _Entries(policy.deny)

    def decide(self, host: str, port: int) -> Decision:
        if self._deny.cover(host, port):
            return "deny"
        if self._login.cover(host, port):
            return "allow"
        if self._mode == "none":
            return "deny"
        if self._mode == "open" or self._allow.cover(host, port):
            return "allow"
        return "ask" if self._mode == "ask" else "deny"

    def lists_address(self, address: Address, port: int) -> bool:
        """Whether an entry names the address itself, which opens private ones."""
        return self._allow.name(hosts.canonical(str(address)), port)

    def denies_address(self, address: Address, port: int) -> bool:
        return self._deny.name(hosts.canonical(str(address)), port)


class _Entries:
    """A look-up costs as much as the name has labels, however many entries there are."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._entries: set[Entry] = set()
        for text in texts:
            with contextlib.suppress(BadRequest):  # The daemon checks entries; a bad one must not void the others.
                self._entries.add(hosts.entry(text))

    def name(self, host: str, port: int) -> bool:
        return Entry(host, port) in self._entries or Entry(host) in self._entries

    def cover(self, host: str, port: int) -> bool:
        labels = host.split(".")
        domains = (f"*.{'.'.join(labels[start:])}" for start in range(1, len(labels)))
        return self.name(host, port) or any(self.name(domain, port) for domain in domains)
