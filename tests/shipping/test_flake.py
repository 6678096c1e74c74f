"""The flake's package and NixOS module, evaluated by real Nix with a stand-in for nixpkgs."""

import json
import re
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from missing_tool import missing_tool

from hive import __version__
from hive.paths import Paths
from hive.systemd import Service

from .conftest import ROOT, run

NIXPKGS = Path(__file__).with_name("nixpkgs")
NIX_MAX_S = 120.0
SYSTEM = "x86_64-linux"
MODULE = """
(let
  flake = builtins.getFlake "path:{flake}";
  nixpkgs = builtins.getFlake "path:{nixpkgs}";
in
nixpkgs.lib.evalModule {{
  module = flake.nixosModules.default;
  pkgs = nixpkgs.legacyPackages.{system};
  given = {{ services.hive = {given}; }};
}})
"""

Evaluate = Callable[[str], Any]


def dependencies() -> list[str]:
    """The names of hive's Python dependencies, as pyproject.toml lists them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [re.split(r"[<>=~!\[ ]", line)[0] for line in project["dependencies"]]


@pytest.fixture(scope="module")
def flake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the flake whose nixpkgs is the stand-in."""
    folder = tmp_path_factory.mktemp("flake")
    shutil.copytree(NIXPKGS, folder / "nixpkgs")
    (folder / "nixpkgs" / "python.json").write_text(json.dumps(dependencies()))
    (folder / "hive" / "hive").mkdir(parents=True)
    shutil.copytree(ROOT / "nix", folder / "hive" / "nix")
    shutil.copy(ROOT / "hive" / "__init__.py", folder / "hive" / "hive")
    text = (ROOT / "flake.nix").read_text()
    (folder / "hive" / "flake.nix").write_text(
        re.sub(r'(?<=inputs\.nixpkgs\.url = ")[^"]+', f"path:{folder}/nixpkgs", text)
    )
    return folder


@pytest.fixture(scope="module")
def evaluate(flake: Path) -> Evaluate:
    if shutil.which("nix") is None:
        missing_tool("nix is not installed; it evaluates the flake")

    def nix(*command: str) -> str:
        store = flake / "store"
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(flake),
            "NIX_STORE_DIR": str(store / "store"),
            "NIX_STATE_DIR": str(store / "state"),
            "NIX_LOG_DIR": str(store / "log"),
        }
        options = {"experimental-features": "nix-command flakes", "build-users-group": "", "substitute": "false"}
        words = [word for key, value in options.items() for word in ("--option", key, value)]
        return run("nix", *command, *words, cwd=flake, **environment)

    nix("flake", "lock", f"path:{flake}/hive")
    return lambda expression: json.loads(nix("eval", "--impure", "--json", "--expr", expression))


def module(flake: Path, given: str) -> str:
    return MODULE.format(flake=flake / "hive", nixpkgs=flake / "nixpkgs", system=SYSTEM, given=given)


def test_package_has_the_version_and_the_dependencies_of_the_project(flake: Path, evaluate: Evaluate) -> None:
    package = f'(builtins.getFlake "path:{flake}/hive").packages.{SYSTEM}.default'
    found = evaluate(f"{{ inherit ({package}) pname version dependencies path; }}")
    assert (found["pname"], found["version"]) == ("hive", __version__)
    assert found["dependencies"] == dependencies()
    assert {"bubblewrap", "git"} <= {
        re.sub(r".*/[a-z0-9]+-(\w+)/bin", r"\1", one) for one in found["path"][-1].split(":")
    }


def test_module_runs_the_unit_that_the_command_installs(flake: Path, evaluate: Evaluate) -> None:
    found = evaluate(module(flake, "{ enable = true; }") + ".systemd.services.hive")
    unit = Service(Paths(Path("/var/lib/hive"), Path("/run/hive")), user=False).text()
    section = unit.partition("[Service]")[2].partition("[Install]")[0]
    wanted = dict(line.split("=", 1) for line in section.splitlines() if "=" in line and not line.startswith("#"))
    written = {key: _as_systemd(value) for key, value in found["serviceConfig"].items()}
    command = written.pop("ExecStart")
    assert wanted.pop("ExecStart") == f"{sys.executable} -I -m hive up --state /var/lib/hive --run /run/hive"
    assert command.endswith("/bin/hive up --state /var/lib/hive --run /run/hive")
    assert written == wanted
    assert found["wantedBy"] == ["multi-user.target"]
    assert found["preStart"] == ""


def test_settings_become_hive_toml_in_the_state_folder(flake: Path, evaluate: Evaluate) -> None:
    given = '{ enable = true; stateDir = "/srv/hive"; settings.claude.model = "a-model"; }'
    start = evaluate(module(flake, given) + ".systemd.services.hive.preStart")
    assert re.fullmatch(r"install -D -m 0600 \S+-hive.toml /srv/hive/hive.toml", start.strip())


def test_disabled_module_changes_nothing(flake: Path, evaluate: Evaluate) -> None:
    assert evaluate(module(flake, "{ enable = false; }")) == {}


def test_unknown_option_is_refused(flake: Path, evaluate: Evaluate) -> None:
    with pytest.raises(AssertionError, match="unknown options: stateDirr"):
        evaluate(module(flake, '{ enable = true; stateDirr = "/srv/hive"; }') + ".systemd")


def _as_systemd(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
