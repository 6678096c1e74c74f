"""Migration of flakes from the older template."""

import subprocess
from pathlib import Path

import pytest

from hive.config.migration import MARKER, migrate, needs_migration, rendered, uses_old_template
from hive.config.repositories import MAIN, Repositories

PLAIN = "{ outputs = { self, ... }: { nixosModules.default = import ./agent.nix; }; }\n"
WITH_INPUTS = """{
  description = "x";
  inputs.one.url = "github:owner/one";
  inputs.two = {
    url = "github:owner/two";
    inputs.nixpkgs.follows = "one";
  };
  outputs = { self, one, two }: { nixosModules.default = import ./agent.nix; };
}
"""
WITH_BLOCK = """{
  inputs = {
    one.url = "github:owner/one";
    two = { url = "github:owner/two"; };
  };
  outputs = { self, ... }: { nixosModules.default = import ./agent.nix; };
}
"""


@pytest.mark.parametrize("old", [PLAIN, WITH_INPUTS, WITH_BLOCK])
def test_migrated_flake_keeps_its_inputs(old: str, tmp_path: Path):
    new = rendered(old)
    assert uses_old_template(old) and not uses_old_template(new)
    assert MARKER in new and "imports = [ ./agent.nix ]" in new
    for line in ('url = "github:owner/one"', 'url = "github:owner/two"', 'inputs.nixpkgs.follows = "one"'):
        assert (line in new) == (line in old)
    (tmp_path / "flake.nix").write_text(new)
    nix_parses(tmp_path / "flake.nix")


def nix_parses(path: Path) -> None:
    """Check the syntax with Nix if it is installed."""
    try:
        subprocess.run(["nix-instantiate", "--parse", str(path)], check=True, capture_output=True)
    except FileNotFoundError:
        return


def test_migration_is_one_commit_and_runs_once(repositories: Repositories):
    old = repositories.commit_files("coder", {"flake.nix": WITH_INPUTS.encode()}, message="old")
    repositories.applied("coder").run("update-ref", MAIN, old)
    assert needs_migration(repositories, "coder")
    new = migrate(repositories, "coder")
    assert new == repositories.main("coder") != old
    git = repositories.applied("coder")
    assert git.text("log", "--format=%P %s", "--max-count=1", MAIN).startswith(f"{old} Migrate flake.nix")
    assert git.text("diff-tree", "--name-only", "-r", old, new) == "flake.nix"
    assert migrate(repositories, "coder") is None
    assert repositories.main("coder") == new


@pytest.mark.parametrize("flake", ["{ outputs = { ... }: { nixosModules.default = ./own.nix; }; }", "broken {", ""])
def test_handwritten_flake_is_not_migrated(repositories: Repositories, flake: str):
    sha = repositories.commit_files("coder", {"flake.nix": flake.encode()}, message="own")
    repositories.applied("coder").run("update-ref", MAIN, sha)
    assert migrate(repositories, "coder") is None
    gone = repositories.commit_files("coder", {"flake.nix": None}, message="gone")
    repositories.applied("coder").run("update-ref", MAIN, gone)
    assert not needs_migration(repositories, "coder")
