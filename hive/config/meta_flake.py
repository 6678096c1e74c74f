"""The meta flake: one flake that pins every agent's applied revision. Used by the builders and the config pipeline."""

import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from hive.config import tree
from hive.config.git import SHA, Git
from hive.config.repositories import MAIN
from hive.names import AgentName
from hive.paths import Paths

NIXPKGS: Final = "github:NixOS/nixpkgs/nixos-25.05"
"""Unless hive.toml names another."""
SYSTEM: Final = f"{os.uname().machine}-linux"
FLAKE: Final = "flake.nix"
LOCK: Final = "flake.lock"
_PIN: Final = re.compile(r'^  inputs\."agent-([a-z0-9-]+)"\.url = ".*[?&]rev=([0-9a-f]{40})";$', re.MULTILINE)
_TEMPLATE: Final = """\
# Written by hive: what every agent is deployed on. Changes made here are lost.
{
  description = "All agents of this hive";

  inputs.nixpkgs.url = %(nixpkgs)s;
%(inputs)s
  outputs =
    { self, nixpkgs, ... }@inputs:
    let
      system = "%(system)s";
      names = [ %(names)s];
      configuration =
        name:
        nixpkgs.lib.nixosSystem {
          inherit system;
          modules = [
            inputs."agent-${name}".nixosModules.default
            {
              boot.isContainer = true;
              networking.hostName = name;
              system.stateVersion = "25.05";
            }
          ];
        };
      each = make: builtins.listToAttrs (map (name: { inherit name; value = make name; }) names);
    in
    {
      nixosConfigurations = each configuration;
      environments = each (name: (configuration name).config.system.path);
    };
}
"""


class MetaFlake:
    """A git repository of its own; every change of a pin is a commit. Its lock is left to the Nix builder."""

    def __init__(self, paths: Paths, nixpkgs: str = NIXPKGS) -> None:
        self._paths = paths
        self._nixpkgs = nixpkgs
        self._lock = threading.RLock()

    @contextmanager
    def held(self) -> Iterator[None]:
        """One change at a time."""
        with self._lock:
            yield

    def pins(self) -> dict[AgentName, str]:
        """The revision that each agent is pinned to."""
        try:
            return dict(_PIN.findall((self._paths.meta / FLAKE).read_text()))
        except FileNotFoundError:
            return {}

    def lock(self) -> bytes | None:
        """The committed flake.lock, if Nix ever wrote one."""
        path = self._paths.meta / LOCK
        return path.read_bytes() if path.is_file() else None

    def rendered(self, pins: dict[AgentName, str]) -> str:
        """The flake with these pins."""
        assert all(SHA.fullmatch(sha) for sha in pins.values())
        inputs = [
            f'  inputs."agent-{name}".url = {json.dumps(self.url(name, sha))};\n' for name, sha in sorted(pins.items())
        ]
        parts = {
            "nixpkgs": json.dumps(self._nixpkgs),
            "inputs": "".join(inputs),
            "system": SYSTEM,
            "names": "".join(f'"{name}" ' for name in sorted(pins)),
        }
        return _TEMPLATE % parts

    def url(self, name: AgentName, sha: str) -> str:
        """An agent's applied revision as a flake reference."""
        return f"git+file://{self._paths.applied(name)}?ref={MAIN}&rev={sha}"

    def pin(self, changes: dict[AgentName, str | None], *, lock: bytes | None = None) -> bool:
        """Commit pins set, or dropped where None; whether anything changed. `lock` replaces flake.lock."""
        with self._lock:
            pins = self.pins() | {name: sha for name, sha in changes.items() if sha is not None}
            for name in (name for name, sha in changes.items() if sha is None):
                pins.pop(name, None)
            git = self._repository()
            flake = self.rendered(pins).encode()
            if not (self._paths.meta / FLAKE).is_file() or flake != (self._paths.meta / FLAKE).read_bytes():
                self._write(FLAKE, flake)
            if lock is not None:
                self._write(LOCK, lock)
            git.run("add", "--all")
            if git.text("status", "--porcelain") == "":
                return False
            what = ", ".join(f"{name} {sha[:12] if sha else 'is gone'}" for name, sha in sorted(changes.items()))
            git.run("commit", "--quiet", "--no-verify", "-m", f"Pin {what}"[:500])
            return True

    def _repository(self) -> Git:
        meta = self._paths.meta
        git = Git(meta / ".git", work_tree=meta)
        if not (meta / ".git" / "HEAD").is_file():
            meta.mkdir(mode=0o755, parents=True, exist_ok=True)
            git.run("init", "--quiet", "--template=", str(meta))
        return git

    def _write(self, name: str, content: bytes) -> None:
        new = self._paths.meta / f".git/{name}.new"
        with new.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.rename(self._paths.meta / name)
        tree.flush_folder(self._paths.meta)


def lock_without(lock: bytes, name: AgentName) -> bytes:
    """A flake.lock that knows nothing of one agent."""
    whole = json.loads(lock)
    whole["nodes"][whole["root"]].get("inputs", {}).pop(f"agent-{name}", None)
    return json.dumps(whole, indent=2).encode()


def locked_revision(lock: bytes, name: AgentName) -> str | None:
    """What a flake.lock pins an agent to."""
    node = json.loads(lock).get("nodes", {}).get(f"agent-{name}", {})
    revision = node.get("locked", {}).get("rev")
    return revision if isinstance(revision, str) else None


def locked_schemes(lock: bytes) -> list[tuple[str, str]]:
    """Each input of a lock, transitive ones too, as (name, scheme): what was fetched and how."""
    nodes = json.loads(lock).get("nodes", {})
    return [(name, scheme_of(node["locked"])) for name, node in nodes.items() if "locked" in node]


def scheme_of(reference: dict[str, object] | str) -> str:
    """`github`, `path`, `git+https`, `https`, …; `indirect` for a registry name."""
    if isinstance(reference, str):
        scheme, colon, _ = reference.partition(":")
        if reference.startswith(("/", ".")):
            return "path"
        return scheme.lower() if colon and "/" not in scheme else "indirect"
    kind, url = str(reference.get("type", "indirect")), str(reference.get("url", ""))
    if kind == "git":
        return f"git+{url.partition(':')[0].lower()}"
    if kind in ("tarball", "file"):
        return url.partition(":")[0].lower()
    return kind
