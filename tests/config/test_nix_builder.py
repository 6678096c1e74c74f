"""The Nix builder and the meta flake, with real Nix, a separate store and a stand-in for nixpkgs."""

import json
from pathlib import Path
from typing import Any

import pytest
from missing_tool import missing_tool

from hive.config.builders import BuildFailed, PlainBuilder
from hive.config.meta_flake import MetaFlake
from hive.config.nix import NixHost
from hive.config.nix_builder import ENVIRONMENT, NixBuilder
from hive.config.repositories import Repositories
from hive.paths import Paths
from hive.runtimes.process import ProcessRuntime

NIXPKGS = Path(__file__).with_name("nixpkgs")
INPUT = """{
  outputs = { self }: {
    packages.x86_64-linux.default = (import ./program.nix) "foo";
  };
}
"""
PROGRAM = """name: derivation {
  inherit name;
  system = "x86_64-linux";
  builder = "/bin/sh";
  PATH = "/usr/bin:/bin";
  args = [ "-c" "mkdir -p $out/bin; echo '#!/bin/sh' > $out/bin/${name}; chmod +x $out/bin/${name}" ];
}
"""
WITH_FOO = """{
  inputs.foo.url = "path:%s";
  outputs = { self, ... }@inputs: {
    nixosModules.default = {
      imports = [ ./agent.nix ];
      _module.args.flakeInputs = builtins.removeAttrs inputs [ "self" ];
    };
  };
}
"""
USES_FOO = b"""{ pkgs, flakeInputs, ... }:
assert !(flakeInputs ? self);
{ environment.systemPackages = [ pkgs.git flakeInputs.foo.packages.${pkgs.system}.default ]; }
"""


class Host:
    """A host with Nix: a store in the test's folder and an input that agents may use."""

    def __init__(self, folder: Path, paths: Paths, repositories: Repositories) -> None:
        self.paths, self.repositories = paths, repositories
        self.foo = folder / "foo"
        self.foo.mkdir()
        (self.foo / "flake.nix").write_text(INPUT)
        (self.foo / "program.nix").write_text(PROGRAM)
        self.store = folder / "nix/store"
        self.store.parent.mkdir()
        self.meta = MetaFlake(paths, f"path:{NIXPKGS}")
        self.builder = self.builder_with()

    def builder_with(self, schemes: frozenset[str] = frozenset({"path"}), visible: bool = True) -> NixBuilder:
        nix = self.store.parent
        host = NixHost(
            nixpkgs=f"path:{NIXPKGS}",
            input_schemes=schemes,
            options={"substitute": "false", "sandbox": "false"},
            environment={
                "NIX_STORE_DIR": str(self.store),
                "NIX_STATE_DIR": str(nix / "var"),
                "NIX_LOG_DIR": str(nix / "log"),
            },
            visible=(self.foo,) if visible else (),
        )
        plain = PlainBuilder(self.paths, self.repositories, ProcessRuntime(), self.meta)
        return NixBuilder(self.paths, self.repositories, plain, self.meta, host)

    def commit(self, flake: str, agent: bytes | None = None) -> str:
        changes: dict[str, bytes | None] = {"flake.nix": flake.encode()}
        if agent is not None:
            changes["agent.nix"] = agent
        return self.repositories.commit_files("coder", changes, message="x")

    def build(self, sha: str) -> Path:
        return self.builder.build("coder", sha, uid=None)

    def in_the_store(self, text: str) -> bool:
        files = (path for path in self.store.rglob("*") if path.is_file() and not path.is_symlink())
        return self.store.exists() and any(text.encode() in path.read_bytes() for path in files)


@pytest.fixture
def host(tmp_path: Path, paths: Paths, repositories: Repositories) -> Host:
    made = Host(tmp_path, paths, repositories)
    lack = made.builder.lacks()
    if lack is not None:
        missing_tool(lack)
    return made


def programs(generation: Path) -> set[str]:
    return {path.name for path in (generation / ENVIRONMENT / "bin").iterdir()}


def test_template_builds_and_meta_flake_pins_it(host: Host):
    sha = host.repositories.main("coder")
    assert programs(host.build(sha)) == {"git", "python3"}
    assert host.meta.pins() == {}
    host.builder.deployed("coder", sha)
    assert host.meta.pins() == {"coder": sha}
    assert json.loads(host.meta.lock() or b"")["nodes"]["agent-coder"]["locked"]["rev"] == sha


def test_agent_nix_sees_every_input_except_self(host: Host):
    sha = host.commit(WITH_FOO % host.foo, USES_FOO)
    assert programs(host.build(sha)) == {"git", "foo"}
    host.builder.deployed("coder", sha)
    nodes = json.loads(host.meta.lock() or b"")["nodes"]
    assert nodes["agent-coder"]["inputs"] == {"foo": "foo"}
    assert nodes["foo"]["locked"]["narHash"]


def test_inputs_are_pinned_by_the_agents_own_lock(host: Host):
    def foo_of(name: str) -> dict[str, Any]:
        nodes = json.loads(host.meta.lock() or b"")["nodes"]
        found: dict[str, Any] = nodes[nodes[f"agent-{name}"]["inputs"]["foo"]]
        return found

    def deploy(name: str, **more: bytes) -> str:
        files = {"flake.nix": (WITH_FOO % host.foo).encode(), "agent.nix": USES_FOO, "prompt.md": str(more).encode()}
        sha = host.repositories.commit_files(name, files | {"flake.lock": more.get("lock")}, message="x")
        host.builder.deployed(name, sha)
        return str(foo_of(name)["locked"]["narHash"])

    old, node = deploy("coder"), foo_of("coder")
    (host.foo / "program.nix").write_text(PROGRAM.replace("mkdir", ": newer; mkdir"))
    own = {"nodes": {"foo": node, "root": {"inputs": {"foo": "foo"}}}, "root": "root", "version": 7}
    assert deploy("coder", lock=json.dumps(own).encode()) == old
    assert deploy("coder", again=b"") != old


@pytest.mark.parametrize(
    ("flake", "said"),
    [
        ("{ outputs = { self }: { }; }", "nixosModules"),
        ("{ outputs = ", "syntax error"),
        ("{ outputs = { self }: throw ''my own words''; }", "my own words"),
    ],
)
def test_broken_flake_fails_with_nix_error_and_changes_no_pin(host: Host, flake: str, said: str):
    host.builder.deployed("coder", host.repositories.main("coder"))
    before = host.meta.pins(), host.meta.lock()
    sha = host.commit(flake)
    with pytest.raises(BuildFailed, match=said):
        host.build(sha)
    assert (host.meta.pins(), host.meta.lock()) == before
    assert not host.repositories.generation_folder("coder", sha).exists()


@pytest.mark.parametrize(
    "reference",
    [
        '"path:{secret}"',
        '"{secret}"',
        '"git+file://{secret}"',
        '"file://{secret}/secret.txt"',
        '"http://127.0.0.1:9/x.tar.gz"',
        '"nixpkgs"',
        '{{ type = "path"; path = "{secret}"; }}',
    ],
)
def test_input_with_disallowed_scheme_is_refused(host: Host, tmp_path: Path, reference: str):
    secret = secret_folder(tmp_path)
    named = reference.format(secret=secret)
    spec = f"inputs.x = {named};" if named.startswith("{") else f"inputs.x.url = {named};"
    host.builder = host.builder_with(schemes=frozenset({"github"}))
    with pytest.raises(BuildFailed, match="not allowed") as failed:
        host.build(host.commit("{ " + spec + " outputs = { ... }: { }; }"))
    assert "TOPSECRET" not in str(failed.value)
    assert not host.in_the_store("TOPSECRET")


def secret_folder(folder: Path) -> Path:
    secret = folder / "secret"
    secret.mkdir()
    (secret / "secret.txt").write_text("TOPSECRET")
    (secret / "flake.nix").write_text("{ outputs = { ... }: { text = ''TOPSECRET''; }; }")
    return secret


@pytest.mark.parametrize(
    "expression",
    [
        "builtins.readFile {secret}/secret.txt",
        'builtins.readFile "{secret}/secret.txt"',
        'builtins.fetchurl "file://{secret}/secret.txt"',
        'builtins.path {{ path = "{secret}"; name = "x"; }}',
        'builtins.fetchTree {{ type = "path"; path = "{secret}"; }}',
        'import "{secret}/flake.nix"',
        'builtins.getEnv "HOME"',
        "builtins.exec [ ''cat'' ''{secret}/secret.txt'' ]",
    ],
)
def test_evaluation_cannot_read_host_files(host: Host, tmp_path: Path, expression: str):
    secret = secret_folder(tmp_path)
    made = expression.format(secret=secret)
    flake = "{ outputs = { ... }: { nixosModules.default = throw (toString (" + made + ")); }; }"
    with pytest.raises(BuildFailed) as failed:
        host.build(host.commit(flake))
    assert "TOPSECRET" not in str(failed.value)
    assert not host.in_the_store("TOPSECRET")


def test_transitive_input_cannot_read_host_files(host: Host, tmp_path: Path):
    secret = secret_folder(tmp_path)
    (host.foo / "flake.nix").write_text(
        '{ inputs.x.url = "path:' + str(secret) + '"; outputs = { x, ... }: { packages = throw x.text; }; }'
    )
    with pytest.raises(BuildFailed) as failed:
        host.build(host.commit(WITH_FOO % host.foo, USES_FOO))
    assert "TOPSECRET" not in str(failed.value)
    assert not host.in_the_store("TOPSECRET")


def test_nix_settings_of_the_flake_are_ignored(host: Host, tmp_path: Path):
    flake = (WITH_FOO % host.foo).replace(
        "{\n", "{\n  nixConfig.allow-import-from-derivation = true;\n  nixConfig.restrict-eval = false;\n", 1
    )
    agent = b"{ pkgs, ... }: { environment.systemPackages = [ (import pkgs.git) ]; }"
    with pytest.raises(BuildFailed, match="allow-import-from-derivation"):
        host.build(host.commit(flake, agent))


def test_meta_flake_commits_once_for_each_change(paths: Paths, repositories: Repositories):
    meta = MetaFlake(paths)
    sha = repositories.main("coder")
    assert meta.pin({"coder": sha})
    assert not meta.pin({"coder": sha})
    assert meta.pin({"writer": sha})
    assert meta.pin({"coder": None})
    assert meta.pins() == {"writer": sha}
    assert (paths.meta / "flake.nix").read_text().count(sha) == 1
