"""The builder of hosts with Nix: the plain generation, and the packages or the NixOS system of the agent's flake."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from hive.config.builders import BuildFailed, PlainBuilder
from hive.config.escaping import escaped
from hive.config.git import SHA
from hive.config.meta_flake import FLAKE, LOCK, MetaFlake, lock_without, locked_revision, locked_schemes, scheme_of
from hive.config.nix import Nix, NixHost
from hive.config.repositories import UNFINISHED, Repositories
from hive.errors import BadRequest
from hive.names import AgentName
from hive.paths import Paths
from hive.runtimes.nixos import SYSTEM

EVALUATION_TIME_LIMIT_S = 300
"""For locking and evaluation, including downloads of inputs."""
BUILD_TIME_LIMIT_S = 3_600
ENVIRONMENT: Final = "nix-environment"
"""A link in the generation to its packages in the store."""


class Product(msgspec.Struct, frozen=True):
    """What is built of an agent's flake: its attribute in the meta flake, its link, and the folder of its GC roots."""

    attribute: str
    link: str
    roots: str


PACKAGES: Final = Product("environments.{name}", ENVIRONMENT, "nix-roots")
NIXOS: Final = Product("nixosConfigurations.{name}.config.system.build.toplevel", SYSTEM, "nixos-roots")


class NixBuilder:
    """Runs Nix in a sandbox with the store, the applied repositories and the meta flake.

    An input that names another host path finds nothing there, whatever its scheme.
    """

    kind = "nix"

    def __init__(
        self,
        paths: Paths,
        repositories: Repositories,
        plain: PlainBuilder,
        meta: MetaFlake,
        host: NixHost,
        product: Product = PACKAGES,
    ) -> None:
        self._paths = paths
        self._repositories = repositories
        self._plain = plain
        self._meta = meta
        self._nix = Nix(paths, host)
        self._schemes = host.input_schemes
        self._product = product

    def lacks(self) -> str | None:
        """What this host misses, with the fix; None when Nix can build here."""
        return self._nix.lacks()

    def build(self, name: AgentName, sha: str, *, uid: int | None) -> Path:
        folder = self._plain.build(name, sha, uid=uid, then=lambda folder: self._add_product(name, sha, folder))
        if not (folder / self._product.link).is_symlink():  # Built while hive.toml asked for another runtime.
            self._add_product(name, sha, folder)
        return folder

    def sweep(self, name: AgentName) -> None:
        self._plain.sweep(name)

    def deployed(self, name: AgentName, sha: str) -> None:
        """Pin the commit in the meta flake and its lock."""
        with self._meta.locked():
            lock = self._meta.lock()
            if self._meta.pins().get(name) == sha and lock is not None and locked_revision(lock, name) == sha:
                return
            with self._candidate(name, sha) as folder:
                self._meta.pin({name: sha}, lock=(folder / LOCK).read_bytes())

    def dropped(self, name: AgentName) -> None:
        """Remove the agent's pin. Pins of other agents in the lock do not change."""
        lock = self._meta.lock()
        self._meta.pin({name: None}, lock=None if lock is None else lock_without(lock, name))

    def _add_product(self, name: AgentName, sha: str, folder: Path) -> None:
        product = self._product
        link = folder / product.link
        if os.path.lexists(link):
            raise BadRequest(f"{product.link} is reserved for the output of the flake; rename the file.")
        self._check_inputs(folder)
        with self._meta.locked(), self._candidate(name, sha) as candidate:
            root = self._root(name, sha)
            root.parent.mkdir(mode=0o755, exist_ok=True)
            attribute = f"path:{candidate}#{product.attribute.format(name=name)}"
            binds = [(candidate, False), (root.parent, True)]
            self._nix.run(
                ["build", "--no-write-lock-file", "--out-link", str(root), attribute], binds, BUILD_TIME_LIMIT_S
            )
            link.symlink_to(root.readlink())
        self._drop_old_roots(name, keep=sha)

    @contextlib.contextmanager
    def _candidate(self, name: AgentName, sha: str) -> Iterator[Path]:
        """A copy of the meta flake with this commit pinned and locked."""
        folder = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=self._paths.agent(name)))
        try:
            (folder / FLAKE).write_text(self._meta.rendered(self._meta.pins() | {name: sha}))
            lock = self._meta.lock()
            if lock is not None:
                # Without its entry, Nix takes the pins of the agent's own flake.lock.
                (folder / LOCK).write_bytes(lock_without(lock, name))
            self._nix.run(["flake", "lock", f"path:{folder}"], [(folder, True)], EVALUATION_TIME_LIMIT_S)
            self._check_lock((folder / LOCK).read_bytes())
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _check_inputs(self, folder: Path) -> None:
        """Check the scheme of each input of the agent's flake before Nix fetches anything.

        Raises:
            BuildFailed: names the input but not its target.
        """
        if not (folder / FLAKE).is_file():
            raise BuildFailed(f"There is no {FLAKE} in the configuration.")
        expression = f"(import {json.dumps(str(folder / FLAKE))}).inputs or {{}}".replace("${", "\\${")
        flags = ["eval", "--impure", "--json", "-I", f"flake={folder}", "--expr", expression]
        said = self._nix.run(flags, [(folder, False)], EVALUATION_TIME_LIMIT_S)
        for name, reference in _references(json.loads(said), ()):
            self._check_scheme(name, scheme_of(reference))

    def _check_lock(self, lock: bytes) -> None:
        """Check the schemes of transitive inputs. Hive's own inputs are trusted."""
        ours = {"nixpkgs", *(f"agent-{name}" for name in self._paths_of_agents())}
        for name, scheme in locked_schemes(lock):
            if name not in ours:
                self._check_scheme(name, scheme)

    def _check_scheme(self, name: str, scheme: str) -> None:
        if scheme not in self._schemes:
            raise BuildFailed(
                f"{FLAKE}: the input {escaped(name)} uses {escaped(scheme)}, which is not allowed here; "
                f"allowed are {', '.join(sorted(self._schemes))}."
            )

    def _paths_of_agents(self) -> list[AgentName]:
        return [path.name for path in self._paths.all_applied.iterdir()]

    def _root(self, name: AgentName, sha: str) -> Path:
        """The garbage collector root of a generation's output."""
        return self._paths.agent(name) / self._product.roots / sha

    def _drop_old_roots(self, name: AgentName, keep: str) -> None:
        for root in self._root(name, keep).parent.iterdir():
            stale = SHA.fullmatch(root.name) and not self._repositories.generation_folder(name, root.name).is_dir()
            if stale and root.name != keep:
                root.unlink()


def _references(inputs: Any, place: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Dotted name and reference of each input, nested inputs included."""
    if not isinstance(inputs, dict):
        raise BuildFailed(f"{FLAKE}: inputs must be a plain set.")
    for name, spec in inputs.items():
        path = (*place, str(name))
        if not isinstance(spec, dict):
            raise BuildFailed(f"{FLAKE}: the input {escaped('.'.join(path))} must be a set with a url.")
        if isinstance(spec.get("url"), str):
            yield ".".join(path), spec["url"]
        elif "type" in spec:
            yield ".".join(path), spec
        elif "follows" not in spec and not spec.get("inputs"):
            yield ".".join(path), "indirect:"
        yield from _references(spec.get("inputs", {}), path)
