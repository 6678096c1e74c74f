"""Edits the `[swarm]` tables of `hive.toml` and leaves the rest of the file as it is. Used by the command line."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any, Final

from hive import settings
from hive.errors import BadRequest, Refused
from hive.settings import PeerSettings, Settings, SwarmSettings

_HEADER: Final = re.compile(r"^\s*\[\[?\s*([^\[\]#]+?)\s*\]\]?\s*(#.*)?$")


def write(path: Path, swarm: SwarmSettings) -> None:
    """Replace the `[swarm]` tables.

    Raises:
        BadRequest: the file or the new settings are wrong. Refused: the tables cannot be told from the rest.
    """
    old = path.read_text() if path.exists() else ""
    before = settings.load(path)
    text = (_without_swarm(old).rstrip() + "\n\n" + _written(swarm)).lstrip()
    if settings.parse(text.encode(), str(path)) != _with(before, swarm):
        raise Refused(f"{path} has [swarm] in a form that hive cannot edit. Write it as [swarm] tables, or edit it.")
    fresh = path.with_name(path.name + ".new")
    with fresh.open("w") as file:
        os.fchmod(file.fileno(), path.stat().st_mode & 0o777 if path.exists() else 0o600)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)


def _with(before: Settings, swarm: SwarmSettings) -> Settings:
    fields = {name: getattr(before, name) for name in Settings.__struct_fields__}
    return Settings(**{**fields, "swarm": swarm})


def _without_swarm(text: str) -> str:
    """The lines outside the `[swarm]` tables. A header inside a multi-line string is caught by the comparison."""
    kept, is_swarm = list[str](), False
    for line in text.splitlines(keepends=True):
        if (header := _HEADER.match(line)) is not None:
            is_swarm = header[1].replace('"', "").split(".")[0].strip() == "swarm"
        if not is_swarm:
            kept.append(line)
    return "".join(kept)


def _written(swarm: SwarmSettings) -> str:
    lines = ["[swarm]"]
    own = {"name": swarm.name, "servers": swarm.servers, "credentials_file": swarm.credentials_file}
    lines += [f"{key} = {_toml(value)}" for key, value in own.items() if value is not None]
    for name, peer in swarm.peers.items():
        lines += ["", f"[swarm.peers.{name}]", f"key = {_toml(peer.key)}"]
        if peer.operators:
            lines.append(f"operators = {_toml(peer.operators)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        text = f'"{escaped}"'
    else:
        text = "[" + ", ".join(_toml(one) for one in value) + "]"
    try:
        tomllib.loads(f"x = {text}")
    except tomllib.TOMLDecodeError as error:
        raise BadRequest(f"{value!r} cannot be written to hive.toml: {error}.") from error
    return text


def with_peer(swarm: SwarmSettings, name: str, peer: PeerSettings | None) -> SwarmSettings:
    """The settings with one peer set, or removed."""
    peers = {key: value for key, value in swarm.peers.items() if key != name}
    if peer is not None:
        peers[name] = peer
    return SwarmSettings(
        name=swarm.name,
        servers=swarm.servers,
        credentials_file=swarm.credentials_file,
        peers=dict(sorted(peers.items())),
    )
