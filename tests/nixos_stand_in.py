"""The stand-in for nixpkgs with a system that boots: Debian's, copied once into the host's Nix store."""

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import os_image

from hive.runtimes.os_tree import AGENT_ID

SOURCE = Path(__file__).parent / "config/nixpkgs"
OPTIONS = {"substitute": "false", "sandbox": "false"}
"""Nothing can be fetched, and the builders are programs of the host."""
COPY = (
    "mkdir $out; cd {image}; tar cf - --mode=ug-s --exclude=var/lib/apt --exclude=var/cache/apt usr etc var"
    " | tar xf - -C $out --no-same-owner"
)
"""Nix allows no set-id files, and what only apt may read cannot be copied."""
TREE = f"""derivation {{{{
  name = "debian-tree-{{digest}}";
  system = "x86_64-linux";
  builder = "/bin/sh";
  PATH = "/usr/bin:/bin";
  args = [ "-ec" "{COPY}" ];
}}}}
"""


def digest() -> str:
    texts = b"".join(path.read_bytes() for path in sorted(SOURCE.iterdir())) + TREE.encode() + bytes(os_image.FOLDER)
    return hashlib.sha256(texts).hexdigest()[:12]


FOLDER = os_image.CACHE / f"nixpkgs-{digest()}"
"""The flake; its reference is `path:FOLDER`."""


def settings() -> str:
    """A hive.toml for the runtime nixos."""
    options = "".join(f'{key} = "{value}"\n' for key, value in OPTIONS.items())
    runtime = f"[runtime]\nfirst_uid = {os_image.first_uid()}\n"
    return f'{runtime}[nix]\nnixpkgs = "path:{FOLDER}"\n[nix.options]\n{options}'


def ensure() -> None:
    """Write the flake and put the tree into the store, once."""
    os_image.ensure()
    if FOLDER.exists() or not os_image.FOLDER.exists() or shutil.which("nix") is None:
        return
    with (os_image.CACHE / "nix-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if FOLDER.exists():
            return
        unfinished = FOLDER.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(SOURCE, unfinished)
        (unfinished / "tree.nix").write_text(TREE.format(digest=os_image.FOLDER.name, image=os_image.FOLDER))
        nix("build", f"path:{unfinished}#tree", "--out-link", str(FOLDER.with_suffix(".tree")))
        unfinished.rename(FOLDER)


SYSTEM = FOLDER.with_suffix(".system")
"""A link to a system without packages and services, for tests of the runtime alone."""
SYSTEM_FLAKE = """{{
  inputs.nixpkgs.url = "path:{nixpkgs}";
  outputs = {{ self, nixpkgs }}: {{
    system = (nixpkgs.lib.nixosSystem {{
      system = "x86_64-linux";
      modules = [ {{
        networking.hostName = "coder";
        users.groups.agent.gid = {id};
        users.users.agent = {{ uid = {id}; group = "agent"; home = "/state"; }};
      }} ];
    }}).config.system.build.toplevel;
  }};
}}
"""


def ensure_system() -> None:
    """Build SYSTEM, once."""
    ensure()
    if SYSTEM.is_symlink() or not FOLDER.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "flake.nix").write_text(SYSTEM_FLAKE.format(nixpkgs=FOLDER, id=AGENT_ID))
        nix("build", f"path:{folder}#system", "--out-link", f"{folder}/system")
        nix_store("--add-root", str(SYSTEM), "--realise", str(Path(folder, "system").resolve()))


def nix(*arguments: str) -> str:
    """Run nix on the host's store."""
    options = {"experimental-features": "nix-command flakes", "build-users-group": "", **OPTIONS}
    flags = [word for key, value in options.items() for word in ("--option", key, value)]
    done = subprocess.run(["nix", *flags, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def nix_store(*arguments: str) -> str:
    """Run nix-store on the host's store."""
    return subprocess.run(["nix-store", *arguments], capture_output=True, text=True, check=True).stdout.strip()
