"""Which addresses agents may not reach unless an entry lists the address itself, and how names are resolved."""

import asyncio
import concurrent.futures
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from typing import Final

ADDRESSES_MAX: Final = 8
"""Of one name; further ones are not tried."""
RESOLVE_TIMEOUT_S: Final = 15.0
RESOLVING_MAX: Final = 64
"""Look-ups at once, of all agents."""
ALSO_REFUSED: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            "168.63.129.16/32",  # Azure's host, with credentials of the machine. All others of its kind are link-local.
            "192.88.99.0/24",  # 6to4 relays.
            "fec0::/10",  # Site-local, as in old networks.
        ),
    )
)
NAT64: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
COMPATIBLE: Final = ipaddress.IPv6Network("::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[Address]]]


class NotResolved(Exception):
    """The name has no address; `str()` says why."""


def refused_because(address: Address) -> str | None:
    """Why no agent reaches this address by itself; None: it is public and not this host's."""
    for one in (address, *_embedded(address)):
        if one.is_loopback or one.is_unspecified:
            return "a loopback address"
        if one.is_link_local:
            return "a link-local address (cloud metadata is one)"
        if one.is_multicast:
            return "a multicast address"
        if not one.is_global or any(one.version == net.version and one in net for net in ALSO_REFUSED):
            return "a private or reserved address"
    return "an address of this host" if _is_own(address) else None


def _embedded(address: Address) -> list[ipaddress.IPv4Address]:
    """IPv4 addresses that an IPv6 address leads to."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if any(address in net for net in (*NAT64, COMPATIBLE)) and int(address) > 1:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [one for one in found if one is not None]


def _is_own(address: Address) -> bool:
    """Whether packets to the address stay on this host: services that listen on all interfaces would be reached."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))  # A datagram socket sends nothing for this.
            return ipaddress.ip_address(probe.getsockname()[0]) == address
        except OSError:
            return False


class SystemResolver:
    """The host's own resolver, in threads."""

    def __init__(self) -> None:
        self.threads = concurrent.futures.ThreadPoolExecutor(RESOLVING_MAX, "resolve")

    async def __call__(self, host: str, port: int) -> list[Address]:
        """Raises NotResolved."""
        loop = asyncio.get_running_loop()
        look_up = loop.run_in_executor(self.threads, _look_up, host, port)
        try:
            return await asyncio.wait_for(look_up, RESOLVE_TIMEOUT_S)
        except TimeoutError:
            raise NotResolved(f"{host} was not resolved within {RESOLVE_TIMEOUT_S:.0f} s") from None
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a name"
            raise NotResolved(f"{host} cannot be resolved: {reason}") from error


def _look_up(host: str, port: int) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ipaddress.ip_address(str(entry[4][0])) for entry in found))[:ADDRESSES_MAX]
