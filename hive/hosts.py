"""Host entries of the network rules: parsing, spelling and matching. Used by settings, rules and the broker."""

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

import msgspec

from hive.errors import BadRequest

HOST_MAX_CHARS: Final = 253
"""The limit of DNS."""
PORT_MAX: Final = 65_535
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_PORT: Final = re.compile(r"[0-9]{1,5}")


class Entry(msgspec.Struct, frozen=True, order=True):
    """One entry: `host`, `host:port`, `*.domain` or `*.domain:port`, in canonical spelling."""

    host: str
    """A name, `*.` and a domain, or an IP address without brackets."""
    port: int | None = None
    """None matches every port."""

    def __str__(self) -> str:
        return written(self.host, self.port)

    def covers(self, host: str, port: int | None) -> bool:
        """Whether this entry matches a canonical host and port. A port of None needs an entry for every port."""
        if self.port is not None and self.port != port:
            return False
        if self.host.startswith("*."):
            return host.endswith(self.host[1:]) and host != self.host[1:]
        return host == self.host


def written(host: str, port: int | None) -> str:
    """`host`, `host:port` or `[::1]:port`."""
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def entry(text: str) -> Entry:
    """Parse one entry.

    Raises:
        BadRequest: one line that says what is wrong with it.
    """
    host, port = _split(text.strip())
    if host == "*":
        raise BadRequest(f'The entry {_short(text)} matches every host. Use network.mode = "open" for that.')
    domain = host.removeprefix("*.")
    name = canonical(domain)
    if domain is not host:
        if _address(name) is not None:
            raise BadRequest(f"The entry {_short(text)} puts *. before an address. Write the address alone.")
        return Entry(f"*.{name}", port)
    return Entry(name, port)


def canonical(host: str) -> str:
    """The one spelling of a host: lower case, no trailing dot, IDNA; addresses as `ipaddress` writes them.

    Raises:
        BadRequest: neither a host name nor an address.
    """
    address = _address(host.strip("[]"))
    if address is not None:
        mapped = getattr(address, "ipv4_mapped", None)
        return str(mapped or address)
    name = host.removesuffix(".").lower()
    if not name.isascii():
        try:
            name = name.encode("idna").decode()
        except UnicodeError:
            raise BadRequest(f"{_short(host)} is not a host name.") from None
    labels = name.split(".")
    if not name or len(name) > HOST_MAX_CHARS or not all(map(_LABEL.fullmatch, labels)):
        raise BadRequest(f"{_short(host)} is not a host name. Write HOST, HOST:PORT or *.DOMAIN, without a scheme.")
    if labels[-1].isdigit() or labels[-1].startswith("0x"):
        raise BadRequest(f"{_short(host)} is not a valid address. Write it like 192.0.2.7 or [2001:db8::7].")
    return name


def is_covered(entries: Iterable[Entry], host: str, port: int | None) -> bool:
    """Whether any of the entries matches."""
    return any(one.covers(host, port) for one in entries)


def _split(text: str) -> tuple[str, int | None]:
    """Host and port. Brackets hold an IPv6 address; without brackets, an IPv6 address has no port."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise BadRequest(f"{_short(text)} has an unclosed bracket. Write [2001:db8::7]:443.")
        return host, _port(rest[1:], text) if rest else None
    if text.count(":") > 1:
        return text, None
    host, colon, port = text.partition(":")
    return host, _port(port, text) if colon else None


def _port(digits: str, text: str) -> int:
    if _PORT.fullmatch(digits) is None or not 0 < int(digits) <= PORT_MAX:
        raise BadRequest(f"{_short(text)} has a bad port. A port is a number from 1 to {PORT_MAX}.")
    return int(digits)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}…")
