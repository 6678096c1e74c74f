"""`hive.toml`, the host's configuration: read once into frozen Structs, and again when the file changes."""

import difflib
import ipaddress
import os
import stat
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from hive.errors import BadRequest

SETTINGS_MAX_BYTES = 256 * 1024
RUNTIME_KINDS = ("auto", "process", "bubblewrap", "nspawn", "nixos")


class RuntimeSettings(msgspec.Struct, frozen=True, kw_only=True):
    kind: str = "auto"
    first_uid: int = 210_000
    """Under root, agents run as host users from here on, one each; give a range that nobody else has."""


class DashboardSettings(msgspec.Struct, frozen=True, kw_only=True):
    listen: str = "127.0.0.1:7000"
    domain: str | None = None
    """Makes `urls` and each agent's `url` absolute."""
    uid: int = 209_999
    """Under root, the host user that the dashboard runs as; give one that nobody else has."""
    metrics_token_file: str | None = None
    """Whoever has this token may read `/metrics` without a session. Relative to the state folder; mode 0600."""


class ClaudeSettings(msgspec.Struct, frozen=True, kw_only=True):
    model: str | None = None
    base_url: str | None = None
    api_key_file: str | None = None
    """Relative to the state folder; mode 0600. An agent that is given a key can read it."""
    idle_minutes: float = 10
    """After so long without a turn an agent gives its CLI's memory back."""


class ForgeSettings(msgspec.Struct, frozen=True, kw_only=True):
    url: str | None = None
    org: str = "agent-configs"
    token_file: str | None = None


class NixSettings(msgspec.Struct, frozen=True, kw_only=True):
    nixpkgs: str | None = None
    """A flake reference such as `github:NixOS/nixpkgs/nixos-25.05`; with it, agents get their flakes' packages."""


class WebhookSettings(msgspec.Struct, frozen=True, kw_only=True):
    url: str | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file; every key is optional."""

    runtime: RuntimeSettings = RuntimeSettings()
    dashboard: DashboardSettings = DashboardSettings()
    claude: ClaudeSettings = ClaudeSettings()
    forge: ForgeSettings = ForgeSettings()
    nix: NixSettings = NixSettings()
    webhook: WebhookSettings = WebhookSettings()


def load(path: Path) -> Settings:
    """The settings of a hive; a missing file has the defaults.

    Raises:
        BadRequest: one line naming the file, the key and a guess.
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
    """What a daemon that runs with `old` makes of `new`: where it listens and whom its agents run as stay."""
    front = msgspec.structs.replace(old.dashboard, metrics_token_file=new.dashboard.metrics_token_file)
    return msgspec.structs.replace(new, runtime=old.runtime, dashboard=front)


def parse(raw: bytes, name: str = "hive.toml") -> Settings:
    """Decode and check; `name` is how errors call the file.

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
        _refuse_unknown(fields, type(getattr(Settings(), table)), name, f"{table}.")
    try:
        settings = msgspec.convert(tables, Settings)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{name}: {error}.") from error
    _check(settings, name)
    return settings


def secret(state: Path, file: str) -> str:
    """The one line of a secret's file, relative to the state folder.

    Raises:
        BadRequest: missing, empty, or open to others than its owner.
    """
    path = state / file
    try:
        with path.open("rb") as opened:
            if stat.S_IMODE(os.fstat(opened.fileno()).st_mode) & 0o077:
                raise BadRequest(f"{path} is open to others; run: chmod 600 {path}")
            text = opened.read(SETTINGS_MAX_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"{path} cannot be read: {error}.") from error
    if not text or "\n" in text:
        raise BadRequest(f"{path} should hold one line.")
    return text


def _refuse_unknown(fields: Any, cls: type[msgspec.Struct], name: str, prefix: str) -> None:
    if not isinstance(fields, dict):
        raise BadRequest(f"{name}: write {prefix.rstrip('.')} as a table, [{prefix.rstrip('.')}].")
    for key in fields:
        if key not in cls.__struct_fields__:
            near = difflib.get_close_matches(key, cls.__struct_fields__, n=1)
            guess = f"; did you mean {prefix}{near[0]}?" if near else f"; known: {', '.join(cls.__struct_fields__)}."
            raise BadRequest(f"{name}: unknown key {prefix}{key}{guess}")


def _check(settings: Settings, name: str) -> None:
    kind = settings.runtime.kind
    if kind not in RUNTIME_KINDS:
        raise BadRequest(f"{name}: runtime.kind is one of {', '.join(RUNTIME_KINDS)}, not {kind!r}.")
    if settings.runtime.first_uid < 1_000:
        raise BadRequest(f"{name}: runtime.first_uid is below 1000, where the system's own users are.")
    if not 1_000 <= settings.dashboard.uid < settings.runtime.first_uid:
        raise BadRequest(f"{name}: dashboard.uid is from 1000 to below runtime.first_uid, where the agents begin.")
    check_listen(settings.dashboard.listen, f"{name}: dashboard.listen")
    if settings.claude.idle_minutes <= 0:
        raise BadRequest(f"{name}: claude.idle_minutes is over 0.")
    for key, url in (
        ("claude.base_url", settings.claude.base_url),
        ("forge.url", settings.forge.url),
        ("webhook.url", settings.webhook.url),
    ):
        if url is not None:
            check_url(url, f"{name}: {key}")


def check_url(url: str, what: str) -> None:
    """Raises BadRequest, without the address, which may hold a secret: not http or https, or without a host."""
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # A port that is none, or a bracket that is not closed.
        is_good = False
    if not is_good or any(char.isspace() for char in url):
        raise BadRequest(f"{what} is an address such as https://host/path or http://127.0.0.1:8080.")


def check_listen(address: str, what: str) -> tuple[str, int]:
    """Host and port of a loopback address.

    Raises:
        BadRequest: not HOST:PORT, or not loopback: put a proxy in front to serve others.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise BadRequest(f"{what} is HOST:PORT, such as 127.0.0.1:7000, not {address!r}.")
    bare = host.strip("[]")
    try:
        is_loopback = bare == "localhost" or ipaddress.ip_address(bare).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise BadRequest(f"{what} must be on loopback, not {host!r}: put a proxy in front of it to serve others.")
    return bare, int(port)
