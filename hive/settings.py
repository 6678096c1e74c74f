"""`hive.toml`, the host's configuration: read once into frozen Structs, and again when the file changes."""

import difflib
import ipaddress
import os
import re
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, get_args
from urllib.parse import urlsplit

import msgspec

from hive.errors import BadRequest
from hive.names import is_hive_name
from hive.network_settings import (
    CredentialSettings,
    NetworkSettings,
    check_credentials,
    check_network,
    check_prices,
)
from hive.turn_columns import Price

SETTINGS_MAX_BYTES = 256 * 1024
PORT_MAX = 65_535
PUBLIC_KEY: Final = re.compile(r"U[A-Z2-7]{55}")
"""An ed25519 public key in the format of NATS nkeys."""
SHARES: Final = {"events_per_minute": 600, "burst_events": 300, "kib_per_minute": 4_096, "burst_kib": 4_096}
"""The share of an agent by default."""
RAISE_MAX: Final = 10
"""Where `hive.toml` sets no share, an approved `agent.toml` may ask for so many times the default."""
FREE_MB: Final = 512
LIMIT_MAX: Final = 10**9
"""Of every number under `[limits]`."""
RuntimeKind = Literal["auto", "process", "bubblewrap", "nspawn", "nixos"]
RUNTIME_KINDS: Final[tuple[str, ...]] = get_args(RuntimeKind)


class RuntimeSettings(msgspec.Struct, frozen=True, kw_only=True):
    kind: str = "auto"
    first_uid: int = 210_000
    """Under root, each agent runs as a host user of its own, from this uid on. Use a range with no other users."""
    image: str | None = None
    """An OS tree for the runtime nspawn. Relative to the state folder."""

    def image_path(self, state: Path) -> Path | None:
        return None if self.image is None else state / self.image


class DashboardSettings(msgspec.Struct, frozen=True, kw_only=True):
    listen: str = "127.0.0.1:7000"
    domain: str | None = None
    """Makes `urls` and each agent's `url` absolute."""
    uid: int = 209_999
    """Under root, the host user of the dashboard. Use a uid with no other user."""
    metrics_token_file: str | None = None
    """A token for reading `/metrics` without a session. Relative to the state folder; mode 0600."""


class ClaudeSettings(msgspec.Struct, frozen=True, kw_only=True):
    model: str | None = None
    base_url: str | None = None
    api_key_file: str | None = None
    """Relative to the state folder; mode 0600. The broker adds the key; without isolation an agent can read it."""
    idle_minutes: float = 10
    """An agent stops its CLI after this time without a turn, to free memory."""


class ForgeSettings(msgspec.Struct, frozen=True, kw_only=True):
    url: str | None = None
    org: str = "agent-configs"
    token_file: str | None = None


class NixSettings(msgspec.Struct, frozen=True, kw_only=True):
    nixpkgs: str | None = None
    """A flake reference such as `github:NixOS/nixpkgs/nixos-25.05`; enables the packages of the agents' flakes."""
    options: dict[str, str] = {}
    """Options of Nix, such as substituters. The host's nix.conf is not read."""


class WebhookSettings(msgspec.Struct, frozen=True, kw_only=True):
    url: str | None = None


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of each agent. A value here is the default and the maximum; without it, both follow the host's size."""

    memory_mb: int | None = None
    processes: int | None = None
    """Processes and threads."""
    cpu_percent: int | None = None
    """100 is one core. Without it only the equal weight of all agents limits an agent."""
    disk_mb: int | None = None
    """Of `/state` and the proposed repository together."""
    events_per_minute: int | None = None
    """Events in the log that an agent's requests cause. Absent: see SHARES, as for the next three keys."""
    burst_events: int | None = None
    kib_per_minute: int | None = None
    """Size of these events; the same again for replies and live lines."""
    burst_kib: int | None = None
    connections: int = 2_048
    """Open connections of one agent; each has at most one parked call."""
    free_mb: int | None = None
    """Free disk space below which agents are refused. Absent: FREE_MB, or a tenth of a smaller file system."""


class BrokerSettings(msgspec.Struct, frozen=True, kw_only=True):
    uid: int = 209_998
    """Under root, the host user that the broker runs as. Choose one that nobody else has."""


class PeerSettings(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    """The peer's public key, as `hive swarm init` prints it."""
    operators: tuple[str, ...] = ()
    """Operators of that hive whose decisions count here; empty: none."""


class SwarmSettings(msgspec.Struct, frozen=True, kw_only=True):
    name: str | None = None
    """The name of this hive among its peers; None: this hive is in no swarm."""
    servers: tuple[str, ...] = ()
    """NATS servers: `nats://HOST:PORT` or `tls://HOST:PORT`."""
    credentials_file: str | None = None
    """NATS credentials, if the servers are not hive's own. Relative to the state folder; mode 0600."""
    peers: dict[str, PeerSettings] = {}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file. Every key is optional."""

    runtime: RuntimeSettings = RuntimeSettings()
    dashboard: DashboardSettings = DashboardSettings()
    claude: ClaudeSettings = ClaudeSettings()
    forge: ForgeSettings = ForgeSettings()
    nix: NixSettings = NixSettings()
    webhook: WebhookSettings = WebhookSettings()
    limits: LimitSettings = LimitSettings()
    broker: BrokerSettings = BrokerSettings()
    swarm: SwarmSettings = SwarmSettings()
    network: NetworkSettings = NetworkSettings()
    prices: dict[str, Price] = {}
    credentials: dict[str, CredentialSettings] = {}


def load(path: Path) -> Settings:
    """Read the settings. A missing file means the defaults.

    Raises:
        BadRequest: one line with the file, the key and a suggestion.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(SETTINGS_MAX_BYTES + 1)
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror}.") from error
    return parse(raw, str(path))


def taken_over(old: Settings, new: Settings) -> Settings:
    """Apply `new` to a running daemon. Its listen addresses and host users stay as in `old`."""
    dashboard = msgspec.structs.replace(old.dashboard, metrics_token_file=new.dashboard.metrics_token_file)
    return msgspec.structs.replace(new, runtime=old.runtime, dashboard=dashboard, broker=old.broker)


def parse(raw: bytes, name: str = "hive.toml") -> Settings:
    """Decode and validate. `name` is the file's name in errors.

    Raises:
        BadRequest: one line.
    """
    if len(raw) > SETTINGS_MAX_BYTES:
        raise BadRequest(f"{name} is over {SETTINGS_MAX_BYTES} bytes.")
    try:
        tables = tomllib.loads(raw.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadRequest(f"{name} is not TOML: {error}.") from error
    _refuse_unknown(tables, Settings, name, "")
    for table, fields in tables.items():
        named = NAMED_TABLES.get(table)
        if named is None:
            _refuse_unknown(fields, type(getattr(Settings(), table)), name, f"{table}.")
        elif not isinstance(fields, dict):
            raise BadRequest(f'{name}: write {table} as tables, [{table}."NAME"].')
        else:
            for key, inner in fields.items():
                _refuse_unknown(inner, named, name, f'{table}."{key}".')
    for peer, fields in _subtables(tables, "swarm", "peers", name):
        _refuse_unknown(fields, PeerSettings, name, f"swarm.peers.{peer}.")
    try:
        settings = msgspec.convert(tables, Settings)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{name}: {error}.") from error
    _check(settings, name)
    return settings


NAMED_TABLES: dict[str, type[msgspec.Struct]] = {"prices": Price, "credentials": CredentialSettings}
"""Tables with one table per name."""


def secret(state: Path, file: str) -> str:
    """Read a secret: a file with one line, relative to the state folder.

    Raises:
        BadRequest: missing, empty, or accessible to other users.
    """
    path = state / file
    try:
        with path.open("rb") as opened:
            if stat.S_IMODE(os.fstat(opened.fileno()).st_mode) & 0o077:
                raise BadRequest(f"{path} is accessible to other users; run: chmod 600 {path}")
            text = opened.read(SETTINGS_MAX_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"{path} cannot be read: {error}.") from error
    if not text or "\n" in text:
        raise BadRequest(f"{path} must hold one line.")
    return text


def secret_files(path: Path) -> frozenset[str]:
    """The files with secrets that `hive.toml` names, as it names them.

    Raises:
        BadRequest: the file is wrong.
    """
    return frozenset(_named_files(msgspec.to_builtins(load(path))))


def _named_files(table: dict[str, Any]) -> Iterator[str]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _named_files(value)
        elif isinstance(value, str) and (key == "file" or key.endswith("_file")):
            yield value


def _refuse_unknown(fields: Any, cls: type[msgspec.Struct], name: str, prefix: str) -> None:
    if not isinstance(fields, dict):
        raise BadRequest(f"{name}: write {prefix.rstrip('.')} as a table, [{prefix.rstrip('.')}].")
    for key in fields:
        if key not in cls.__struct_fields__:
            near = difflib.get_close_matches(key, cls.__struct_fields__, n=1)
            guess = f"; did you mean {prefix}{near[0]}?" if near else f"; known: {', '.join(cls.__struct_fields__)}."
            raise BadRequest(f"{name}: unknown key {prefix}{key}{guess}")


def _subtables(tables: dict[str, Any], table: str, key: str, name: str) -> list[tuple[str, Any]]:
    found = tables.get(table, {}).get(key, {})
    if not isinstance(found, dict):
        raise BadRequest(f"{name}: write {table}.{key} as tables, [{table}.{key}.NAME].")
    return list(found.items())


def check_swarm(swarm: SwarmSettings, name: str) -> None:
    """Raises BadRequest: a bad hive name, key or server address."""
    if swarm.name is None:
        if swarm.servers or swarm.peers:
            raise BadRequest(f"{name}: swarm.name is missing. Set it, or run: hive swarm init NAME --server URL")
        return
    for hive in (swarm.name, *swarm.peers):
        if not is_hive_name(hive):
            raise BadRequest(f"{name}: {hive!r} is not a hive name. Use 1 to 32 of a-z, 0-9 and -.")
    if swarm.name in swarm.peers:
        raise BadRequest(f"{name}: swarm.peers.{swarm.name} has the name of this hive. Remove it.")
    if not swarm.servers:
        raise BadRequest(f"{name}: swarm.servers is empty. Name at least one NATS server.")
    for url in swarm.servers:
        check_server(url, f"{name}: swarm.servers")
    for peer, settings in swarm.peers.items():
        if PUBLIC_KEY.fullmatch(settings.key) is None:
            raise BadRequest(f"{name}: swarm.peers.{peer}.key is not a public key as `hive swarm init` prints it.")


def check_server(url: str, what: str) -> None:
    """Raises BadRequest: not the address of a NATS server."""
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("nats", "tls") and bool(parts.hostname) and not parts.path and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise BadRequest(f"{what}: {url!r} is not a NATS server address. Use nats://HOST:PORT or tls://HOST:PORT.")


def _check(settings: Settings, name: str) -> None:
    check_swarm(settings.swarm, name)
    kind = settings.runtime.kind
    if kind not in RUNTIME_KINDS:
        raise BadRequest(f"{name}: runtime.kind must be one of {', '.join(RUNTIME_KINDS)}, not {kind!r}.")
    if settings.runtime.first_uid < 1_000:
        raise BadRequest(f"{name}: runtime.first_uid must be at least 1000; lower uids are system users.")
    if not 1_000 <= settings.dashboard.uid < settings.runtime.first_uid:
        raise BadRequest(f"{name}: dashboard.uid must be at least 1000 and below runtime.first_uid.")
    if not 1_000 <= settings.broker.uid < settings.runtime.first_uid or settings.broker.uid == settings.dashboard.uid:
        raise BadRequest(f"{name}: broker.uid must be at least 1000, below runtime.first_uid, and not dashboard.uid.")
    check_listen(settings.dashboard.listen, f"{name}: dashboard.listen")
    if settings.claude.idle_minutes <= 0:
        raise BadRequest(f"{name}: claude.idle_minutes must be over 0.")
    for key in LimitSettings.__struct_fields__:
        value = getattr(settings.limits, key)
        if value is not None and not 0 < value <= LIMIT_MAX:
            raise BadRequest(f"{name}: limits.{key} must be over 0 and at most {LIMIT_MAX}.")
    for key, url in (
        ("claude.base_url", settings.claude.base_url),
        ("forge.url", settings.forge.url),
        ("webhook.url", settings.webhook.url),
    ):
        if url is not None:
            check_url(url, f"{name}: {key}")
    check_network(settings.network, name)
    check_prices(settings.prices, name)
    check_credentials(settings.credentials, name)
    for host, credential in settings.credentials.items():
        if credential.url is not None:
            check_url(credential.url, f'{name}: credentials."{host}".url')


def check_url(url: str, what: str) -> None:
    """Raises BadRequest: not http or https, or no host. The error omits the address, which may contain a secret."""
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # An invalid port or an unclosed bracket.
        is_good = False
    if not is_good or any(char.isspace() for char in url):
        raise BadRequest(f"{what} must be an address such as https://host/path or http://127.0.0.1:8080.")


def host_and_port(address: str, what: str) -> tuple[str, int]:
    """The parts of HOST:PORT, without the brackets of an IPv6 address. Raises BadRequest: malformed."""
    host, _, port = address.rpartition(":")
    if (
        not host
        or host.startswith("[") is not host.endswith("]")
        or not (port.isascii() and port.isdigit())
        or int(port) > PORT_MAX
    ):
        raise BadRequest(f"{what} must be HOST:PORT, such as 127.0.0.1:7000, not {address!r}.")
    return host.strip("[]"), int(port)


def check_listen(address: str, what: str) -> tuple[str, int]:
    """Host and port of a loopback address.

    Raises:
        BadRequest: not HOST:PORT, or not loopback.
    """
    bare, port = host_and_port(address, what)
    try:
        is_loopback = bare == "localhost" or ipaddress.ip_address(bare).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise BadRequest(f"{what} must be on loopback, not {bare!r}. To serve other hosts, put a proxy in front of it.")
    return bare, port
