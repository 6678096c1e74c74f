"""Agents with a login of their own: its token reaches the model through the broker; the hosts of a login are open."""

import json
import os
import time
from collections.abc import Iterator

import pytest

from hive.actors.reach import LOGIN_HOSTS
from hive.scripted_model import ScriptedModel

from .hive_process import HiveProcess
from .sandboxed_hive import sandboxed_hive
from .test_broker import turn

pytestmark = pytest.mark.system

TOKEN = "sk-ant-oat01-hive-dummy-coder"
"""The scripted model takes the end for the agent's name."""


@pytest.fixture(scope="module")
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel() as one:
        yield one


@pytest.fixture(scope="module")
def hive(model: ScriptedModel) -> Iterator[HiveProcess]:
    settings = f'[claude]\nbase_url = "{model.url}"\n[network]\nmode = "none"\n'
    with sandboxed_hive({"hive.toml": settings}, paused=True) as one:
        yield one


def log_in(hive: HiveProcess, name: str) -> None:
    """What the CLI's own login leaves in the agent's state."""
    state = hive.paths.agent_state(name)
    folder, owner = state / ".claude", state.stat()
    folder.mkdir(exist_ok=True)
    login = {
        "accessToken": TOKEN,
        "refreshToken": "sk-ant-ort01-refresh",
        "expiresAt": int((time.time() + 30 * 24 * 3600) * 1000),
        "scopes": ["user:inference", "user:profile"],
        "subscriptionType": "max",
    }
    (folder / ".credentials.json").write_text(json.dumps({"claudeAiOauth": login}))
    for path in (folder, folder / ".credentials.json"):
        os.chown(path, owner.st_uid, owner.st_gid)


def test_turn_with_the_token_of_a_login_goes_through_the_broker_and_is_metered(
    hive: HiveProcess, model: ScriptedModel
) -> None:
    log_in(hive, "coder")
    hive.run("restart", "coder")
    hive.ask("set_paused", name="coder", paused=False)
    assert turn(hive, model, "echo ${ANTHROPIC_API_KEY:-no key} $ANTHROPIC_BASE_URL").startswith(
        "no key http://127.0.0.1"
    )
    assert {request.agent for request in model.requests} == {"coder"}
    assert hive.event("ModelUsed", agent="coder")["requests"] > 0


def test_hosts_of_a_login_are_open_in_every_mode_and_others_are_not(hive: HiveProcess, model: ScriptedModel) -> None:
    said = hive.run("egress", "list", "--agent", "coder")
    assert all(host in said for host in LOGIN_HOSTS)
    for host in LOGIN_HOSTS:
        connect = (
            f"curl -sS -o /dev/null -w '%{{http_connect}}' --connect-timeout 20 https://{host}/ 2>/dev/null || true"
        )
        assert turn(hive, model, connect) in ("200", "502"), "502: allowed, and without an internet not reached"
    assert "403" in turn(hive, model, "curl -s -o /dev/null -w '%{http_connect}' https://docs.example/ || true")
