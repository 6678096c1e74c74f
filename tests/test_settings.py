"""`hive.toml`: valid files are read, invalid ones are refused with the place and a suggestion."""

from pathlib import Path

import pytest

from hive import settings
from hive.errors import BadRequest


def test_missing_file_gives_defaults(tmp_path: Path) -> None:
    assert settings.load(tmp_path / "hive.toml") == settings.Settings()


def test_every_published_key_is_read() -> None:
    read = settings.parse(
        b"""
        [runtime]
        kind = "bubblewrap"
        image = "image"
        [dashboard]
        listen = "127.0.0.1:7001"
        domain = "hive.example"
        [claude]
        model = "m"
        base_url = "http://127.0.0.1:1"
        api_key_file = "anthropic.key"
        idle_minutes = 5
        [forge]
        url = "http://127.0.0.1:3000"
        org = "agent-configs"
        token_file = "forge.token"
        [webhook]
        url = "http://127.0.0.1:9/hive"
        [network]
        mode = "listed"
        allow = ["docs.example", "*.example.org:443", "192.0.2.7"]
        [prices."claude-x"]
        input = 3
        cache_read = 0.3
        [credentials."git.example"]
        file = "git.token"
        header = "Authorization: Bearer"
        methods = ["GET"]
        paths = ["/group"]
        agents = ["coder"]
        """
    )
    assert (read.network.mode, len(read.network.allow)) == ("listed", 3)
    assert (read.prices["claude-x"].input, read.prices["claude-x"].output) == (3.0, None)
    assert read.credentials["git.example"].header == "Authorization: Bearer"
    assert (read.runtime.kind, read.dashboard.domain, read.claude.idle_minutes) == ("bubblewrap", "hive.example", 5)
    assert (read.forge.token_file, read.webhook.url) == ("forge.token", "http://127.0.0.1:9/hive")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[runtime]\nknd = 'auto'", "unknown key runtime.knd; did you mean runtime.kind?"),
        ("[dashbord]\nlisten = 'x'", "unknown key dashbord; did you mean dashboard?"),
        ("[runtime]\nkind = 'docker'", "runtime.kind must be one of"),
        ("[dashboard]\nlisten = '0.0.0.0:7000'", "must be on loopback"),
        ("[dashboard]\nlisten = 'nowhere'", "must be HOST:PORT"),
        ("[claude]\nidle_minutes = 'ten'", "$.claude.idle_minutes"),
        ("[claude]\nidle_minutes = 0", "must be over 0"),
        ("[webhook]\nurl = 'nope'", "webhook.url must be an address"),
        ("[forge]\nurl = 'ftp://host/x'", "forge.url must be an address"),
        ("[claude]\nbase_url = 'http://host:port'", "claude.base_url must be an address"),
        ("[claude]\nbase_url = 'https:///path'", "claude.base_url must be an address"),
        ("[network]\nmode = 'closed'", "network.mode must be one of none, listed, ask, open, host"),
        ("[network]\nmod = 'ask'", "did you mean network.mode?"),
        ("[network]\nallow = ['https://a']", "network.allow: "),
        ("[network]\nallow = ['*']", "matches every host"),
        ("[prices.x]\ninput = -1", 'prices."x".input must be from 0'),
        ("[prices.x]\ninput = nan", 'prices."x".input must be from 0'),
        ("[prices.x]\ninputs = 1", 'did you mean prices."x".input?'),
        ("[prices]\ninput = 1", "as a table"),
        ("prices = 1", "write prices as tables"),
        ("[credentials.'*.x']\nfile = 't'", "must be HOST or HOST:PORT"),
        ("[credentials.x]\nuser = 'u'", "file is missing"),
        ("[credentials.x]\nfile = 't'", "needs either header or user"),
        ("[credentials.x]\nfile = 't'\nheader = 'A b'", "header must be NAME"),
        ("[credentials.x]\nfile = 't'\nuser = 'a:b'", "must not contain a colon"),
        ("[credentials.x]\nfile = 't'\nuser = 'u'\nmethods = ['get']", "upper-case methods"),
        ("[credentials.x]\nfile = 't'\nuser = 'u'\npaths = ['x']", "begin with /"),
        ("[credentials.x]\nfile = 't'\nuser = 'u'\nagents = ['X']", "names of agents"),
        ("[credentials.x]\nfile = 't'\nuser = 'u'\nurl = 'x'", "url must be an address"),
        ("runtime = 3", "as a table"),
        ("[runtime", "is not TOML"),
    ],
)
def test_invalid_file_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(BadRequest, match=r"^hive\.toml") as refused:
        settings.parse(text.encode())
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_secret_must_be_one_line_with_mode_0600(tmp_path: Path) -> None:
    key = tmp_path / "anthropic.key"
    key.write_text("sk-1\n")
    key.chmod(0o644)
    with pytest.raises(BadRequest, match="chmod 600"):
        settings.secret(tmp_path, key.name)
    key.chmod(0o600)
    assert settings.secret(tmp_path, key.name) == "sk-1"
    key.write_text("two\nlines\n")
    with pytest.raises(BadRequest, match="one line"):
        settings.secret(tmp_path, key.name)
    with pytest.raises(BadRequest, match="cannot be read"):
        settings.secret(tmp_path, "missing.key")


def test_reload_keeps_listen_addresses_and_uids() -> None:
    old = settings.parse(b"[runtime]\nfirst_uid = 300000\n[dashboard]\ndomain = 'a.example'")
    edit = b"[dashboard]\ndomain = 'b.example'\nmetrics_token_file = 'm'\n[claude]\nmodel = 'x'"
    now = settings.taken_over(old, settings.parse(edit))
    assert (now.runtime.first_uid, now.dashboard.domain) == (300_000, "a.example")
    assert (now.dashboard.metrics_token_file, now.claude.model) == ("m", "x")
