"""Real clients in a real sandbox reach servers of the tests' own through forwarder and broker: curl, git, pip, npm."""

import base64
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from hive.actors.broker_environment import broker_environment, redirected
from hive.broker.wire import Credential
from hive.network_settings import CredentialSettings
from hive.settings import Settings

from .git_server import bare_repository, serve_git
from .inside import NAME, Inside, needs
from .lab import Handler, Web

pytestmark = pytest.mark.system

TOKEN = "forge-token-of-the-operator"
FORGE = "forge.example"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return bare_repository(tmp_path)


PUSH = (
    "cd /state && rm -rf clone && git clone -q {url} clone && cd clone && git checkout -qb main 2>/dev/null || true; "
    "cd /state/clone && echo hello >> file && git add file && "
    "git -c user.name=a -c user.email=a@b commit -qm one && git push -q origin HEAD:main && echo pushed"
)


def test_curl_and_git_use_the_proxy(inside: Inside, repository: Path) -> None:
    with Web() as web, serve_git(repository, None) as git:
        allow = (f"{NAME}:{web.port}", f"{NAME}:{git.port}")
        url, socks = f"http://{NAME}:{web.port}", "--socks5-hostname $(echo $http_proxy | cut -d/ -f3)"
        fetch = f"curl -sS {url}/page; echo; curl -sSp {url}/tunnel; echo; curl -sS {socks} {url}/socks; echo; "
        output = inside.sh(fetch + PUSH.format(url=f"http://{NAME}:{git.port}/group/project.git"), "plain", allow=allow)
        assert [*output[:3], output[-1]] == ["GET /page", "GET /tunnel", "GET /socks", "pushed"]
        command = ["git", "-C", repository / "group/project.git", "log", "--format=%s", "main"]
        log = subprocess.run(command, capture_output=True, check=True)
        assert log.stdout == b"one\n"


def test_private_forge_is_cloned_and_pushed_with_a_token_that_is_not_inside(inside: Inside, repository: Path) -> None:
    environment = broker_environment("forger", _settings(), None)
    with serve_git(repository, TOKEN) as git:
        encoded = base64.b64encode(f"agent:{TOKEN}".encode()).decode()
        credential = Credential(
            host=FORGE,
            url=git.url,
            header="Authorization",
            value=f"Basic {encoded}",
            secrets=(TOKEN, encoded),
            paths=("/group/project",),
        )
        for url in (f"https://{FORGE}/group/project.git", f"git@{FORGE}:group/project.git"):
            script = PUSH.format(url=url) + "; (env; cat .git/config) | grep -c forge-token || true"
            output = inside.sh(script, "forger", environment, mode="none", credentials=(credential,))
            assert output[-2:] == ["pushed", "0"]
        other = f"! git ls-remote https://{FORGE}/other/project.git 2>&1"
        assert "403" in " ".join(inside.sh(other, "forger", environment)), "the credential covers one project"


def _settings() -> Settings:
    return Settings(credentials={FORGE: CredentialSettings(file="forge.token", user="agent")})


def test_pip_installs_from_a_listed_index_and_a_private_one(inside: Inside) -> None:
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "ANSWER = 42\n")
        meta = "tiny-1.0.dist-info"
        archive.writestr(f"{meta}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr(
            f"{meta}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{meta}/RECORD", "")

    def index(handler: Handler) -> None:
        if handler.path.endswith(".whl"):
            handler.reply(wheel.getvalue(), kind="application/octet-stream")
        else:
            handler.reply(
                b'<a href="../../files/tiny-1.0-py3-none-any.whl">tiny-1.0-py3-none-any.whl</a>', kind="text/html"
            )

    options = "-q --disable-pip-version-check --no-cache-dir --isolated"
    pip = f"{sys.executable} -m pip {options} install --no-deps --target /state/$1"
    check = "python3 -c 'import sys; sys.path.insert(0, sys.argv[1]); import tiny; print(tiny.ANSWER)'"
    with Web(index) as web:
        entry = f"{NAME}:{web.port}"
        script = f"set -- listed; {pip} --trusted-host {NAME} -i http://{entry}/simple tiny; {check} /state/listed"
        assert inside.sh(script, "piper", allow=(entry,))[-1] == "42"
        credential = Credential(
            host=FORGE, url=web.url, header="X-Token", value=TOKEN, secrets=(TOKEN,), methods=("GET",)
        )
        environment = redirected({"INDEX": f"https://{FORGE}/simple"}, [FORGE])
        script = f"set -- private; {pip} -i $INDEX tiny; {check} /state/private"
        assert inside.sh(script, "private", environment, mode="none", credentials=(credential,))[-1] == "42"
        assert web.seen[-1][1]["x-token"] == TOKEN


def test_npm_installs_through_the_proxy(inside: Inside) -> None:
    needs("npm", "npm")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in (
            ("package.json", '{"name":"tiny","version":"1.0.0"}'),
            ("index.js", "module.exports = 42\n"),
        ):
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))

    def registry(handler: Handler) -> None:
        if handler.path.endswith(".tgz"):
            handler.reply(packed.getvalue(), kind="application/octet-stream")
            return
        shasum = hashlib.sha1(packed.getvalue()).hexdigest()
        dist = {"tarball": f"http://{handler.headers['host']}/tiny/-/tiny-1.0.0.tgz", "shasum": shasum}
        version = {"name": "tiny", "version": "1.0.0", "dist": dist}
        body = {"name": "tiny", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
        handler.reply(json.dumps(body).encode(), kind="application/json")

    with Web(registry) as web:
        entry = f"{NAME}:{web.port}"
        options = f"--registry http://{entry}/ --no-audit --no-fund --no-update-notifier --loglevel error"
        script = (
            f"mkdir -p /state/js && cd /state/js && npm install {options} tiny >/dev/null; node -p \"require('tiny')\""
        )
        assert inside.sh(script, "noder", allow=(entry,))[-1] == "42"
