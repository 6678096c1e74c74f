"""Configurations on an older template, moved to the present one."""

import subprocess
from pathlib import Path

import pytest

from hive.config.migration import MARKER, is_old, migrate, needs_migration, rendered
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
def test_the_present_form_keeps_the_inputs(old: str, tmp_path: Path):
    new = rendered(old)
    assert is_old(old) and not is_old(new)
    assert MARKER in new and "imports = [ ./agent.nix ]" in new
    for line in ('url = "github:owner/one"', 'url = "github:owner/two"', 'inputs.nixpkgs.follows = "one"'):
        assert (line in new) == (line in old)
    (tmp_path / "flake.nix").write_text(new)
    nix_parses(tmp_path / "flake.nix")


def nix_parses(path: Path) -> None:
    """Where Nix is there it has the last word on what is Nix."""
    try:
        subprocess.run(["nix-instantiate", "--parse", str(path)], check=True, capture_output=True)
    except FileNotFoundError:
        return


def test_a_migration_is_one_commit_and_happens_once(repositories: Repositories):
    old = repositories.commit_files("coder", {"flake.nix": WITH_INPUTS.encode()}, message="old")
    repositories.applied("coder").run("update-ref", MAIN, old)
    assert needs_migration(repositories, "coder")
    new = migrate(repositories, "coder")
    assert new == repositories.main("coder") != old
    git = repositories.applied("coder")
    assert git.text("log", "--format=%P %s", "--max-count=1", MAIN).startswith(f"{old} Move flake.nix")
    assert git.text("diff-tree", "--name-only", "-r", old, new) == "flake.nix"
    assert migrate(repositories, "coder") is None
    assert repositories.main("coder") == new


@pytest.mark.parametrize("flake", ["{ outputs = { ... }: { nixosModules.default = ./own.nix; }; }", "broken {", ""])
def test_what_somebody_wrote_is_left_alone(repositories: Repositories, flake: str):
    sha = repositories.commit_files("coder", {"flake.nix": flake.encode()}, message="own")
    repositories.applied("coder").run("update-ref", MAIN, sha)
    assert migrate(repositories, "coder") is None
    gone = repositories.commit_files("coder", {"flake.nix": None}, message="gone")
    repositories.applied("coder").run("update-ref", MAIN, gone)
    assert not needs_migration(repositories, "coder")
