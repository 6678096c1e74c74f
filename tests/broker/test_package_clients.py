"""Real package managers and ssh in a real sandbox, against servers of the tests' own: apt, nix, cargo, ssh."""

import hashlib
import io
import json
import os
import socket
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from .git_server import serve_git
from .inside import NAME, Inside, needs
from .lab import Handler, Web, eventually

pytestmark = pytest.mark.system


def files_of(folder: Path) -> Callable[[Handler], None]:
    """A server of files."""

    def answer(handler: Handler) -> None:
        path = folder / handler.path.lstrip("/")
        if path.is_file():
            handler.reply(path.read_bytes(), kind="application/octet-stream")
        else:
            handler.reply(b"no such file", 404)

    return answer


def test_apt_installs_from_a_listed_repository(inside: Inside, tmp_path: Path) -> None:
    needs("apt-get", "apt")
    package, served = tmp_path / "tiny", tmp_path / "served"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "usr/share/tiny").mkdir(parents=True)
    served.mkdir()
    (package / "usr/share/tiny/answer").write_text("42\n")
    control = "Package: tiny\nVersion: 1.0\nArchitecture: all\nMaintainer: T <t@t.example>\nDescription: tiny\n"
    (package / "DEBIAN/control").write_text(control)
    subprocess.run(["dpkg-deb", "--build", "-Zgzip", package, served / "tiny.deb"], check=True, capture_output=True)
    data = (served / "tiny.deb").read_bytes()
    more = f"Filename: ./tiny.deb\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
    (served / "Packages").write_text(control + more)
    with Web(files_of(served)) as web:
        script = f"""
            cd /state && mkdir -p apt/lists/partial apt/archives/partial apt/etc/preferences.d && : > apt/status
            echo 'deb [trusted=yes] http://{NAME}:{web.port}/ ./' > apt/sources.list
            set -- -qq -o Dir::Etc=/state/apt/etc -o Dir::Etc::SourceList=/state/apt/sources.list \\
              -o Dir::State=/state/apt -o Dir::State::status=/state/apt/status -o Dir::Cache=/state/apt
            apt-get "$@" update && apt-get "$@" download tiny && dpkg-deb -x tiny_*.deb root
            cat root/usr/share/tiny/answer
        """
        assert inside.sh(script, "debian", allow=(f"{NAME}:{web.port}",))[-1] == "42"
        assert any(path.endswith("/tiny.deb") for path, _, _ in web.seen)


def test_nix_copies_from_a_listed_cache_and_fetches_a_file(inside: Inside, tmp_path: Path) -> None:
    nix = [needs("nix", "nix-bin"), "--extra-experimental-features", "nix-command"]
    (tmp_path / "answer").write_text("42\n")
    cache = tmp_path / "cache"
    store = f"local?root={tmp_path / 'root'}"
    made = subprocess.run(
        [*nix, "store", "add-path", "--store", store, tmp_path / "answer"], check=True, capture_output=True, text=True
    ).stdout.strip()
    subprocess.run([*nix, "copy", "--from", store, "--to", f"file://{cache}", made], check=True, capture_output=True)
    (cache / "tarball").write_text("fetched\n")
    with Web(files_of(cache)) as web:
        url = f"http://{NAME}:{web.port}"
        script = f"""
            export HOME=/state NIX_REMOTE='local?root=/state/nix' NIX_STATE_DIR=/state/var NIX_PATH=
            nix() {{ {" ".join(nix)} "$@" 2>&1; }}
            nix copy --no-check-sigs --from {url} {made} || exit 1
            cat /state/nix{made}
            nix eval --impure --raw --expr 'builtins.readFile (builtins.fetchurl "{url}/tarball")'
        """
        output = inside.sh(script, "nixer", allow=(f"{NAME}:{web.port}",))
        assert "42" in output
        assert output[-1].endswith("fetched"), output


def test_cargo_fetches_a_crate_and_a_git_dependency(inside: Inside, tmp_path: Path) -> None:
    needs("cargo", "cargo")
    crate = _crate("tiny", "pub fn answer() -> u8 { 42 }")
    (tmp_path / "dl").mkdir()
    (tmp_path / "dl" / "tiny").write_bytes(crate)
    with Web(files_of(tmp_path / "dl")) as web, serve_git(tmp_path, None) as git:
        row = {"name": "tiny", "vers": "1.0.0", "deps": [], "features": {}, "yanked": False}
        row["cksum"] = hashlib.sha256(crate).hexdigest()
        index = {
            "config.json": json.dumps({"dl": f"http://{NAME}:{web.port}/{{crate}}"}),
            "ti/ny/tiny": json.dumps(row),
        }
        _repository(tmp_path / "index", index)
        _repository(
            tmp_path / "small",
            {"Cargo.toml": '[package]\nname = "small"\nversion = "1.0.0"\n', "src/lib.rs": "pub fn small() {}\n"},
        )
        script = f"""
            mkdir -p /state/crate/src /state/cargo && cd /state/crate && export CARGO_HOME=/state/cargo
            cat > $CARGO_HOME/config.toml <<END
[source.crates-io]
replace-with = "mine"
[source.mine]
registry = "http://{NAME}:{git.port}/index"
END
            cat > Cargo.toml <<END
[package]
name = "own"
version = "0.1.0"
[dependencies]
tiny = "1"
small = {{ git = "http://{NAME}:{git.port}/small" }}
END
            : > src/lib.rs
            cargo fetch 2>&1 && ls $CARGO_HOME/registry/src/*/ $CARGO_HOME/git/checkouts
        """
        output = inside.sh(script, "crater", allow=(f"{NAME}:{git.port}", f"{NAME}:{web.port}"))
        assert "tiny-1.0.0" in output, output
        assert any(line.startswith("small-") for line in output), output


def _crate(name: str, code: str) -> bytes:
    packed = io.BytesIO()
    manifest = f'[package]\nname = "{name}"\nversion = "1.0.0"\n'
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path, text in (("Cargo.toml", manifest), ("src/lib.rs", code)):
            info = tarfile.TarInfo(f"{name}-1.0.0/{path}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return packed.getvalue()


def _repository(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git = ["git", "-C", folder, "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", "init", "-q", "-b", "master", folder], check=True)
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)


@pytest.mark.parametrize("way", ["5", "connect"], ids=["SOCKS5", "CONNECT"])
def test_ssh_reaches_a_listed_host(inside: Inside, tmp_path: Path, way: str) -> None:
    needs("ssh", "openssh-client"), needs("nc", "netcat-openbsd")
    with socket.create_server((NAME, 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen(_ssh_server(tmp_path, port), stderr=subprocess.DEVNULL) as server:
        try:
            eventually(lambda: _answers(port), "the server listens")
            script = f"""
                umask 077; printf '%s' '{(tmp_path / "key").read_text()}' > /state/id
                ssh -i /state/id -p {port} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \\
                  -o LogLevel=ERROR -o ProxyCommand='nc -X {way} -x 127.0.0.1:3199 %h %p' someone@{NAME}
            """
            assert inside.sh(script, f"ssh-{way}", allow=(f"{NAME}:{port}",))[-1] == "reached"
        finally:
            server.terminate()


def _ssh_server(folder: Path, port: int) -> list[str | Path]:
    """The command of a server with a user of its own, who may log in with `key`."""
    server, home = needs("dropbear", "dropbear-bin"), folder / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    home.chmod(0o700)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    subprocess.run(["dropbearkey", "-t", "ed25519", "-f", folder / "host"], check=True, capture_output=True)
    (home / ".ssh/authorized_keys").write_text((folder / "key.pub").read_text())
    (home / ".ssh/authorized_keys").chmod(0o600)
    (folder / "passwd").write_text(f"someone:x:{os.getuid()}:{os.getgid()}::{home}:/bin/sh\n")
    walls = ["bwrap", "--dev-bind", "/", "/", "--ro-bind", folder / "passwd", "/etc/passwd", "--die-with-parent"]
    options = ["-F", "-E", "-s", "-r", folder / "host", "-P", folder / "pid", "-p", f"{NAME}:{port}"]
    return [*walls, server, *options, "-c", "echo reached"]


def _answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex((NAME, port)) == 0
