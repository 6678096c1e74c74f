"""Client of the forge (Forgejo or Gitea) that mirrors configurations. Used by the forge mirror actor."""

import base64
import time
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from hive.config.escaping import escaped
from hive.config.git import Git, GitFailed
from hive.config.proposals import KINDS
from hive.config.repositories import MAIN
from hive.errors import HiveError, Unavailable
from hive.names import AgentName

ANSWER_TIME_LIMIT_S = 15
"""For one complete API response."""
STEP_TIME_LIMIT_S = 5
"""For connecting and for each read."""
ANSWER_LIMIT_BYTES = 1024 * 1024
PUSH_TIME_LIMIT_S = 60
ERROR_SHOWN_CHARACTERS = 300

REFSPECS: Final = (f"+{MAIN}:{MAIN}", *(f"+refs/tags/{kind}/*:refs/tags/{kind}/*" for kind in KINDS))
"""Forced, so that a push overwrites refs that diverged on the mirror."""


class ForgeFailed(HiveError):
    """A forge request failed. Deploys do not depend on the forge."""

    code = "forge_failed"


class ForgeUnreachable(ForgeFailed):
    """The forge does not respond, so requests for other repositories would fail too."""

    code = "forge_unreachable"


class _Organisation(msgspec.Struct):
    visibility: str = "private"


class _Repository(msgspec.Struct):
    private: bool = True


_Answer = TypeVar("_Answer", bound=msgspec.Struct)


class Forge:
    """A connection pool and its token. The token never appears in a URL, argument, file or error."""

    def __init__(self, url: str, org: str, token: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise ForgeFailed("forge.url in hive.toml must be http(s)://HOST[:PORT][/PATH] without a user.")
        self._url = url.rstrip("/")
        self._org = org
        self._token = token
        self._client = httpx.Client(
            headers={"Authorization": f"token {token}", "Accept": "application/json"},
            timeout=STEP_TIME_LIMIT_S,
            follow_redirects=False,  # The token must reach this host only.
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def ensure_org(self) -> None:
        """Create the private organisation if it is missing.

        Raises:
            ForgeUnreachable, ForgeFailed.
        """
        path = f"/orgs/{quote(self._org, safe='')}"
        status, body = self._ask("GET", path)
        if status == 404:
            wanted = {"username": self._org, "visibility": "private", "repo_admin_change_team_access": False}
            self._done("POST", "/orgs", wanted)
        elif status != 200:
            raise _refused("reading the organisation", status, body)
        elif _decoded(body, _Organisation).visibility != "private":
            self._done("PATCH", path, {"visibility": "private"})

    def ensure_repository(self, name: AgentName) -> None:
        """Create the agent's private repository if it is missing. Raises as `ensure_org`."""
        org = quote(self._org, safe="")
        status, body = self._ask("GET", f"/repos/{org}/{name}")
        if status == 404:
            wanted = {"name": name, "private": True, "auto_init": False, "default_branch": "main"}
            self._done("POST", f"/orgs/{org}/repos", wanted)
        elif status != 200:
            raise _refused(f"reading the repository {name}", status, body)
        elif not _decoded(body, _Repository).private:
            self._done("PATCH", f"/repos/{org}/{name}", {"private": True})

    def push(self, name: AgentName, applied: Git) -> None:
        """Push main and all tags of the six kinds, and prune removed ones. Raises ForgeFailed."""
        url = f"{self._url}/{quote(self._org, safe='')}/{name}.git"
        login = base64.b64encode(f"hive:{self._token}".encode()).decode()
        try:
            applied.run(
                "push",
                "--quiet",
                "--prune",
                "--no-verify",
                "--no-signed",
                "--recurse-submodules=no",
                url,
                *REFSPECS,
                secrets={"http.extraHeader": f"Authorization: Basic {login}"},
                time_limit_s=PUSH_TIME_LIMIT_S,
                protocols="http:https",
            )
        except (GitFailed, Unavailable) as error:
            raise ForgeFailed(self._without_token(str(error))) from None

    def _done(self, method: str, path: str, wanted: dict[str, Any]) -> None:
        status, body = self._ask(method, path, wanted)
        if status not in (200, 201):
            raise _refused(f"{method} {path}", status, self._without_token(body.decode(errors="replace")).encode())

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, bytes]:
        deadline = time.monotonic() + ANSWER_TIME_LIMIT_S
        answer = bytearray()
        try:
            with self._client.stream(method, f"{self._url}/api/v1{path}", json=body) as response:
                for chunk in response.iter_bytes():
                    answer += chunk
                    if len(answer) > ANSWER_LIMIT_BYTES or time.monotonic() > deadline:
                        raise ForgeUnreachable(
                            "The forge's response is too large or too slow. Check forge.url in hive.toml."
                        )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = str(error) or type(error).__name__
            raise ForgeUnreachable(f"The forge does not answer: {self._without_token(why)}.") from None
        if response.status_code >= 500 or response.is_redirect:
            raise ForgeUnreachable(f"The forge answers with status {response.status_code}.")
        return response.status_code, bytes(answer)

    def _without_token(self, text: str) -> str:
        return text.replace(self._token, "***")


def _decoded(body: bytes, type_: type[_Answer]) -> _Answer:
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ForgeUnreachable("The forge's response does not match its API. Check forge.url in hive.toml.") from error


def _refused(what: str, status: int, body: bytes) -> ForgeFailed:
    fix = " The token needs the scopes write:organization and write:repository." if status in (401, 403) else ""
    said = escaped(body[:ERROR_SHOWN_CHARACTERS]).strip()
    return ForgeFailed(f"The forge refused {what} with status {status}.{fix} {said}".strip())
