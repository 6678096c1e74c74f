"""The network of a container as programs inside see it: one loopback address, served by the forwarder.

Used by the runtimes, and by whoever makes a container's environment.
"""

# No pathlib and no typing: each costs each shim 1 MB of memory.

PORT = 3199
"""Of 127.0.0.1 in each container's own network namespace: HTTP proxy, SOCKS5, and the broker's own paths."""
ADDRESS = f"127.0.0.1:{PORT}"
URL = f"http://{ADDRESS}"
BACKLOG = 512
"""Connections that wait inside until the forwarder takes them."""
NET_SOCKET = "/run/hive/net.sock"
"""Inside. The daemon binds it as `net.sock` in the agent's run folder."""
NET_SOCKET_NAME = "net.sock"
FORWARD_SOCKET_NAME = "forward.sock"
"""In the record folder, outside the agent's reach: a client sends a port and a newline, then speaks to that port."""
NO_PROXY = "127.0.0.1,localhost,::1"


def proxy_environment() -> dict[str, str]:
    """The variables that make programs use the broker. An HTTP address: not every client knows SOCKS addresses."""
    named = {"HTTP_PROXY": URL, "HTTPS_PROXY": URL, "ALL_PROXY": URL, "NO_PROXY": NO_PROXY}
    return {**named, **{name.lower(): value for name, value in named.items()}}
