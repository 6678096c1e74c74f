"""What `hive doctor` says of the network, of keys and of credentials."""

import os
from collections.abc import Iterator
from typing import Final

from hive.errors import BadRequest
from hive.paths import Paths
from hive.runtimes.host_checks import HostCheck
from hive.settings import Settings, secret

MODES: Final = {
    "none": "agents reach the model alone",
    "listed": "agents reach listed hosts",
    "ask": "agents reach listed hosts, and you are asked about others",
    "open": "agents reach every public address; private ones only where listed",
}


def network_checks(paths: Paths, settings: Settings) -> Iterator[HostCheck]:
    """The network mode, who holds which key, and files with secrets that cannot be read."""
    mode = settings.network.mode
    if settings.runtime.kind == "process":
        says = "the runtime process has no walls: agents use this host's network and can read their key"
        yield HostCheck(name="network", good=False, says=says, fix="Remove runtime.kind from hive.toml.")
    elif mode == "host":
        says = "mode host: agents use this host's network, its loopback services included"
        yield HostCheck(name="network", good=False, says=says, fix="Remove network.mode from hive.toml.")
    else:
        says = f"mode {mode}: {MODES[mode]}, through the broker"
        says += f", which runs as host user {settings.broker.uid}" if os.geteuid() == 0 else ""
        yield HostCheck(name="network", good=True, says=says)
    yield _key(paths, settings)
    for host, one in settings.credentials.items():
        yield _readable(f"credential {host}", paths, one.file, "the broker adds it; no agent holds it")


def _key(paths: Paths, settings: Settings) -> HostCheck:
    file = settings.claude.api_key_file
    if file is None:
        says = "no API key: each agent logs in by itself, holds that login, and reaches its hosts in every mode"
        return HostCheck(name="key", good=True, says=says)
    held = "agents can read it" if settings.runtime.kind == "process" else "the broker adds it; no agent holds it"
    return _readable("key", paths, file, held)


def _readable(name: str, paths: Paths, file: str, says: str) -> HostCheck:
    try:
        secret(paths.state, file)
    except BadRequest as error:
        return HostCheck(name=name, good=False, says=f"{file} cannot be used", fix=str(error))
    return HostCheck(name=name, good=True, says=f"{file}: {says}")
