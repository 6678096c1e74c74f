"""The builder of hosts with Nix: the plain generation, and the packages that the agent's flake asks for."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hive.config.builders import BuildFailed, PlainBuilder
from hive.config.git import SHA
from hive.config.meta_flake import FLAKE, LOCK, MetaFlake, lock_without, locked_revision, locked_schemes, scheme_of
from hive.config.nix import Nix, NixHost
from hive.config.repositories import UNFINISHED, Repositories
from hive.config.shown import shown
from hive.errors import BadRequest
from hive.names import AgentName
from hive.paths import Paths

EVALUATION_TIME_LIMIT_S = 300
"""For locking and evaluating, downloads of inputs included."""
BUILD_TIME_LIMIT_S = 3_600
ENVIRONMENT: Final = "nix-environment"
"""In a generation: a link to the packages in the store."""


class NixBuilder:
    """Nix runs behind walls of its own that hold nothing but the store, the applied repositories and the meta flake.

    So an input that names a host path finds nothing there, whatever scheme it hides behind.
    """

    kind = "nix"

    def __init__(
        self,
        paths: Paths,
        repositories: Repositories,
        plain: PlainBuilder,
        meta: MetaFlake,
        host: NixHost,
    ) -> None:
        self._paths = paths
        self._repositories = repositories
        self._plain = plain
        self._meta = meta
        self._nix = Nix(paths, host)
        self._schemes = host.input_schemes

    def lacks(self) -> str | None:
        """What this host misses, with the fix; None when Nix can build here."""
        return self._nix.lacks()

    def build(self, name: AgentName, sha: str, *, uid: int | None) -> Path:
        return self._plain.build(name, sha, uid=uid, then=lambda folder: self._add_environment(name, sha, folder))

    def sweep(self, name: AgentName) -> None:
        self._plain.sweep(name)

    def deployed(self, name: AgentName, sha: str) -> None:
        """The meta flake pins it from here on, with a lock that says so."""
        with self._meta.held():
            lock = self._meta.lock()
            if self._meta.pins().get(name) == sha and lock is not None and locked_revision(lock, name) == sha:
                return
            with self._candidate(name, sha) as folder:
                self._meta.pin({name: sha}, lock=(folder / LOCK).read_bytes())

    def dropped(self, name: AgentName) -> None:
        """Its pin goes; the pins of the others stay in the lock as they are."""
        lock = self._meta.lock()
        self._meta.pin({name: None}, lock=None if lock is None else lock_without(lock, name))

    def _add_environment(self, name: AgentName, sha: str, folder: Path) -> None:
        link = folder / ENVIRONMENT
        if os.path.lexists(link):
            raise BadRequest(f"{ENVIRONMENT} is where the packages go; name the file otherwise.")
        self._check_inputs(folder)
        with self._meta.held(), self._candidate(name, sha) as candidate:
            root = self._root(name, sha)
            root.parent.mkdir(mode=0o755, exist_ok=True)
            attribute = f"path:{candidate}#environments.{name}"
            wall = [(candidate, False), (root.parent, True)]
            self._nix.run(
                ["build", "--no-write-lock-file", "--out-link", str(root), attribute], wall, BUILD_TIME_LIMIT_S
            )
            link.symlink_to(root.readlink())
        self._drop_old_roots(name, keep=sha)

    @contextlib.contextmanager
    def _candidate(self, name: AgentName, sha: str) -> Iterator[Path]:
        """The meta flake as it would be, locked; the real one is left as it is."""
        folder = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=self._paths.agent(name)))
        try:
            (folder / FLAKE).write_text(self._meta.rendered(self._meta.pins() | {name: sha}))
            lock = self._meta.lock()
            if lock is not None:
                # Nix would keep the pins it has for this agent's inputs; those of its own flake.lock shall count.
                (folder / LOCK).write_bytes(lock_without(lock, name))
            self._nix.run(["flake", "lock", f"path:{folder}"], [(folder, True)], EVALUATION_TIME_LIMIT_S)
            self._check_lock((folder / LOCK).read_bytes())
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _check_inputs(self, folder: Path) -> None:
        """Before anything is fetched: the scheme of each input that the agent's own flake names.

        Raises:
            BuildFailed: naming the input, never what it points at.
        """
        if not (folder / FLAKE).is_file():
            raise BuildFailed(f"There is no {FLAKE} in the configuration.")
        expression = f"(import {json.dumps(str(folder / FLAKE))}).inputs or {{}}".replace("${", "\\${")
        flags = ["eval", "--impure", "--json", "-I", f"flake={folder}", "--expr", expression]
        said = self._nix.run(flags, [(folder, False)], EVALUATION_TIME_LIMIT_S)
        for name, reference in _references(json.loads(said), ()):
            self._check_scheme(name, scheme_of(reference))

    def _check_lock(self, lock: bytes) -> None:
        """What was fetched for inputs of inputs; ours are trusted."""
        ours = {"nixpkgs", *(f"agent-{name}" for name in self._paths_of_agents())}
        for name, scheme in locked_schemes(lock):
            if name not in ours:
                self._check_scheme(name, scheme)

    def _check_scheme(self, name: str, scheme: str) -> None:
        if scheme not in self._schemes:
            raise BuildFailed(
                f"{FLAKE}: the input {shown(name)} uses {shown(scheme)}, which is not allowed here; "
                f"allowed are {', '.join(sorted(self._schemes))}."
            )

    def _paths_of_agents(self) -> list[AgentName]:
        return [path.name for path in self._paths.all_applied.iterdir()]

    def _root(self, name: AgentName, sha: str) -> Path:
        """Keeps the packages of a generation from Nix's garbage collector."""
        return self._paths.agent(name) / "nix-roots" / sha

    def _drop_old_roots(self, name: AgentName, keep: str) -> None:
        for root in self._root(name, keep).parent.iterdir():
            stale = SHA.fullmatch(root.name) and not self._repositories.generation_folder(name, root.name).is_dir()
            if stale and root.name != keep:
                root.unlink()


def _references(inputs: Any, place: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Each input that names a source, inputs of inputs included: (dotted name, reference)."""
    if not isinstance(inputs, dict):
        raise BuildFailed(f"{FLAKE}: inputs must be a plain set.")
    for name, spec in inputs.items():
        path = (*place, str(name))
        if not isinstance(spec, dict):
            raise BuildFailed(f"{FLAKE}: the input {shown('.'.join(path))} must be a set with a url.")
        if isinstance(spec.get("url"), str):
            yield ".".join(path), spec["url"]
        elif "type" in spec:
            yield ".".join(path), spec
        elif "follows" not in spec and not spec.get("inputs"):
            yield ".".join(path), "indirect:"
        yield from _references(spec.get("inputs", {}), path)
