"""The hosts of the package registries that this host's own tools use: pip, npm, cargo, apt and nix."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

ANSWERS_WITHIN_S: Final = 30.0
PORTS: Final = {"http": 80, "https": 443}
_URL: Final = re.compile(r"(?:sparse\+)?(https?://[^\s\"'<>)\]]+)")


class Found(msgspec.Struct, frozen=True):
    """What one tool uses. `entries` is empty if the tool is missing or names no host."""

    tool: str
    entries: tuple[str, ...]


def registries() -> list[Found]:
    """Ask every tool. A tool that is missing or fails has no entries."""
    return [Found(tool, tuple(sorted({*filter(None, map(entry_of, urls()))}))) for tool, urls in TOOLS.items()]


def entry_of(url: str) -> str | None:
    """`host:port` of an http or https URL; None for other URLs and for wrong ones."""
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS.get(parts.scheme)
    except ValueError:
        return None
    return f"{parts.hostname}:{port}" if parts.hostname and port else None


def _pip() -> Iterator[str]:
    """The index, from the defaults that the help shows; and the host that serves the files, from a dry run."""
    yield from _urls(_default_of(_said("pip", "install", "--help"), "-i, --index"))
    yield from _urls(_said("pip", "config", "list"))
    report = _said("pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps", "--report", "-", "pip")
    yield from re.findall(r'"url": "([^"]+)"', report)


def _default_of(help_text: str, option: str) -> str:
    """The text of one option, with the words that the help wrapped joined again."""
    _, _, after = help_text.partition(option)
    described = after.partition("\n  -")[0]
    return " ".join(described.split())


def _npm() -> Iterator[str]:
    try:
        settings = json.loads(_said("npm", "config", "list", "--json") or "{}")
    except ValueError:
        return
    for key, value in settings.items():
        if key == "registry" or key.endswith(":registry"):
            yield from _urls(str(value))


def _cargo() -> Iterator[str]:
    """The configured registries and sources, and the indexes that cargo has used; each index names its downloads."""
    if shutil.which("cargo") is None:
        return
    home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    for name in ("config.toml", "config"):
        yield from _urls(_text(home / name))
    for index in sorted(home.glob("registry/index/*")):
        host, _, _ = index.name.rpartition("-")
        yield f"https://{host}"
        for file in ("config.json", ".cache/config.json"):
            yield from _urls(_text(index / file))


def _apt() -> Iterator[str]:
    yield from _urls(_said("apt-get", "indextargets", "--format", "$(SITE)"))


def _nix() -> Iterator[str]:
    said = _said("nix", "--extra-experimental-features", "nix-command", "config", "show")
    said = said or _said("nix", "--extra-experimental-features", "nix-command", "show-config")
    for line in said.splitlines():
        if line.startswith(("substituters =", "extra-substituters =")):
            yield from _urls(line)


TOOLS: Final[dict[str, Callable[[], Iterator[str]]]] = {
    "pip": _pip,
    "npm": _npm,
    "cargo": _cargo,
    "apt": _apt,
    "nix": _nix,
}


def _said(program: str, *arguments: str) -> str:
    """What a program prints; empty if it is missing, fails or takes too long."""
    path = shutil.which(program)
    if path is None:
        return ""
    environment = {**os.environ, "COLUMNS": "500", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "NO_COLOR": "1"}
    try:
        done = subprocess.run(
            [path, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWERS_WITHIN_S,
            check=False,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _urls(text: str) -> list[str]:
    return _URL.findall(text)
