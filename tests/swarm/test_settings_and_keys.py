"""Joining a swarm without a daemon: keys, the `[swarm]` tables of `hive.toml`, the configuration of a server."""

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hive import settings
from hive.errors import BadRequest
from hive.swarm import keys, server, subjects

SERVER = "nats://127.0.0.1:4222"


def run(state: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "hive", "swarm", *arguments, "--state", str(state)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def done(state: Path, *arguments: str) -> dict[str, Any]:
    ran = run(state, *arguments, "--json")
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_init_makes_one_key_and_keeps_it(tmp_path: Path) -> None:
    first = done(tmp_path, "init", "berlin", "--server", SERVER)
    assert set(first) == {"name", "key"}
    assert first["name"] == "berlin"
    assert keys.PeerKey(first["key"]).text == first["key"]
    assert done(tmp_path, "init", "berlin", "--server", "tls://nats.example:4222") == first
    assert settings.load(tmp_path / "hive.toml").swarm.servers == ("tls://nats.example:4222",)
    for file in ("swarm.key", "hive.toml"):
        assert stat.S_IMODE((tmp_path / file).stat().st_mode) == 0o600
    assert first["key"] in run(tmp_path, "init", "berlin", "--server", SERVER).stdout


def test_trust_and_distrust_change_only_the_swarm_tables(tmp_path: Path) -> None:
    tokyo = done(tmp_path / "tokyo", "init", "tokyo", "--server", SERVER)["key"]
    state = tmp_path / "berlin"
    done(state, "init", "berlin", "--server", SERVER)
    file = state / "hive.toml"
    file.write_text('[claude]\nmodel = "x"  # The cheap one.\n' + file.read_text() + '\n[webhook]\nurl = "http://h/"\n')
    done(state, "trust", "tokyo", tokyo, "--operators", "mara, ada")
    found = settings.load(file)
    assert found.swarm.peers == {"tokyo": settings.PeerSettings(key=tokyo, operators=("mara", "ada"))}
    assert "# The cheap one." in file.read_text()
    assert (found.claude.model, found.webhook.url) == ("x", "http://h/")
    done(state, "trust", "tokyo", tokyo)
    assert settings.load(file).swarm.peers["tokyo"].operators == ("mara", "ada"), "a key alone leaves the operators"
    done(state, "distrust", "tokyo")
    assert settings.load(file).swarm.peers == {}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("trust", "tokyo", "UNOKEY"), "is not a key"),
        (("distrust", "tokyo"), "There is no peer tokyo. Peers: none."),
        (("init", "Berlin!", "--server", SERVER), "is not a hive name"),
        (("init", "berlin", "--server", "http://x"), "is not a NATS server address"),
    ],
)
def test_mistake_is_refused_in_one_line(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    done(tmp_path, "init", "berlin", "--server", SERVER)
    before = (tmp_path / "hive.toml").read_text()
    ran = run(tmp_path, *arguments)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert says in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert (tmp_path / "hive.toml").read_text() == before


def test_mistyped_key_is_noticed(tmp_path: Path) -> None:
    key = done(tmp_path, "init", "berlin", "--server", SERVER)["key"]
    swapped = key[:20] + key[21] + key[20] + key[22:]
    with pytest.raises(BadRequest):
        keys.PeerKey(swapped if swapped != key else key[:-1] + "A")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[swarm]\nservers = ["nats://h:1"]', "swarm.name is missing"),
        ('[swarm]\nname = "berlin"', "swarm.servers is empty"),
        ('[swarm]\nname = "berlin"\nservers = ["nats://h:1"]\n[swarm.peers.tokyo]\nkey = "x"', "not a public key"),
        ('[swarm]\nname = "a"\n[swarm.peers.b]\nkeys = "x"', "did you mean swarm.peers.b.key?"),
        ("[swarm]\npeers = 3", "write swarm.peers as tables"),
    ],
)
def test_bad_swarm_settings_are_refused(text: str, says: str) -> None:
    with pytest.raises(BadRequest, match=says.replace("?", r"\?")):
        settings.parse(text.encode())


def test_server_lets_each_hive_publish_only_as_itself(tmp_path: Path) -> None:
    files = (tmp_path / "c", tmp_path / "k")
    users = {"berlin": "UBER", "tokyo": "UTOK"}
    written = server.configuration(users, "berlin", tmp_path, "127.0.0.1:4222", files, None, [])
    config = json.loads(written)
    assert config["jetstream"]["sync_interval"] == "always"
    assert config["tls"]["cert_file"] == str(files[0])
    berlin, tokyo = config["authorization"]["users"]
    assert (berlin["nkey"], tokyo["nkey"]) == ("UBER", "UTOK")
    may = berlin["permissions"]["publish"]["allow"]
    assert subjects.envelope("tokyo", "berlin") == "hive.to.tokyo.berlin"
    assert "hive.to.*.berlin" in may
    assert not [subject for subject in may if "hive.to" in subject and not subject.endswith(".berlin")]
    writes = [subject for subject in may if any(verb in subject for verb in ("DELETE", "UPDATE", "PURGE", "$KV", "$O"))]
    assert writes
    assert all("tokyo" not in subject for subject in writes)


def test_servers_of_a_cluster_check_each_other(tmp_path: Path) -> None:
    files = (tmp_path / "c", tmp_path / "k")
    written = server.configuration(
        {"berlin": "UBER"}, "berlin", tmp_path, "10.0.0.1:4222", files, "10.0.0.1:6222", ["10.0.0.2:6222"]
    )
    cluster = json.loads(written)["cluster"]
    assert cluster["routes"] == ["nats://10.0.0.2:6222"]
    assert cluster["tls"]["verify"] is True
    assert cluster["tls"]["ca_file"] == str(tmp_path / "members.pem")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--route", "10.0.0.2:6222"), "--route needs --cluster"),
        (("--cluster", "0.0.0.0:6222", "--route", "10.0.0.2"), "--route is HOST:PORT"),
    ],
)
def test_bad_option_of_a_server_is_refused(tmp_path: Path, options: tuple[str, ...], says: str) -> None:
    done(tmp_path, "init", "berlin", "--server", SERVER)
    ran = run(tmp_path, "server", "--dir", str(tmp_path / "nats"), *options)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert says in ran.stderr


def test_daemon_without_swarm_imports_nothing_of_it() -> None:
    program = (
        "import hive.daemon, sys; print([name for name in sys.modules if name.split('.')[0] in ('nats', 'nkeys')])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
