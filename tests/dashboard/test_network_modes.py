"""Mode `host`, agents that narrow it, and its end: what agents reach, and what every screen says of it."""

import json
from collections.abc import Iterator

import pytest
from system.hive_process import HiveProcess, eventually
from system.sandboxed_hive import sandboxed_hive, write
from system.test_broker import KEY, SEARCH, turn, web

from hive.scripted_model import ScriptedModel

from .conftest import PAGES, Person, answers

pytestmark = pytest.mark.system

HTML = {"Accept": "text/html"}
NETWORK = "python3 -c 'import socket; print(len(socket.if_nameindex()))'; echo ${http_proxy:-no proxy}"
SETTINGS = """
[claude]
base_url = "{}"
api_key_file = "anthropic.key"
[network]
mode = "{}"
allow = ["a.example", "b.example"]
"""


@pytest.fixture(scope="module")
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel() as one:
        yield one


@pytest.fixture(scope="module")
def hive(model: ScriptedModel) -> Iterator[HiveProcess]:
    files = {"anthropic.key": KEY, "hive.toml": SETTINGS.format(model.url, "host")}
    with sandboxed_hive(files, dashboard=True) as one:
        eventually(lambda: answers(one), "the dashboard answers")
        yield one


@pytest.fixture(scope="module")
def token(hive: HiveProcess) -> str:
    return str(hive.ask("operators", action="add", name="mara")["token"])


@pytest.fixture
def mara(hive: HiveProcess, token: str) -> Iterator[Person]:
    with Person(hive) as person:
        person.sign_in(token).raise_for_status()
        yield person


def badge_everywhere(mara: Person) -> bool:
    said = {path: 'id="walls"' in mara.get(path, headers=HTML).text for path in (*PAGES, "/agent/coder/")}
    assert len({*said.values()}) == 1, [path for path, has in said.items() if not has]
    return said["/"]


def test_under_host_an_agent_is_on_the_hosts_network_and_still_has_no_key(
    hive: HiveProcess, model: ScriptedModel, mara: Person
) -> None:
    with web() as port:
        assert turn(hive, model, f"curl -s http://127.0.0.1:{port}/") == "reached"
    assert turn(hive, model, NETWORK).endswith("no proxy")
    (hive.paths.agent_state("coder") / "search.py").write_text(SEARCH)
    assert turn(hive, model, "python3 /state/search.py") == "looked at many []"
    assert hive.event("ModelUsed", agent="coder")["requests"] > 0
    assert hive.event("Started", agent="coder")["network"] == "host"

    assert "host's network without walls" in hive.run("status")
    assert "mode host: agents use this host's network" in hive.try_run("doctor").stdout.replace("\n", " ")
    assert "Mode host: the host's own network, without walls" in hive.run("egress", "list", "--agent", "coder")
    assert badge_everywhere(mara)


def test_agent_file_narrows_mode_and_hosts_and_screens_show_both(
    hive: HiveProcess, model: ScriptedModel, mara: Person
) -> None:
    hive.spawn("narrow")
    hive.configure("narrow", '[network]\nmode = "listed"\nallow = ["a.example"]\n')
    hive.run("restart", "narrow")
    hive.ask("set_paused", name="narrow", paused=False)
    with web() as port:
        refused = turn(hive, model, f"curl -s http://127.0.0.1:{port}/ || echo none", agent="narrow")
        assert refused == "none"
        said = turn(hive, model, f"NO_PROXY= no_proxy= curl -s http://127.0.0.1:{port}/", agent="narrow")
        assert 'network mode "listed"' in said
    reply = hive.ask("egress", agent="narrow")
    assert (reply["mode"], reply["allow"]) == ("listed", ["a.example"])
    assert (reply["hive_mode"], reply["hive_allow"]) == ("host", ["a.example", "b.example"])
    said = hive.run("egress", "list", "--agent", "narrow")
    assert "Mode listed: listed hosts only (agent.toml narrows the mode host of hive.toml)" in said
    assert "Allowed in agent.toml: a.example" in said
    page = mara.get("/agent/narrow/", headers=HTML).text
    assert "Narrowed in agent.toml: listed; hive.toml has host." in page
    assert "Allowed in agent.toml: a.example" in page

    hive.configure("narrow", '[network]\nmode = "none"\n')
    hive.run("restart", "narrow")
    with hive.agent("narrow") as agent:
        assert "no network" in agent.say("request_egress", host="c.example", why="x")["error"]
    hive.configure("narrow", '[network]\nmode = "host"\n')
    assert "must be one of none, listed, ask, open" in hive.try_run("restart", "narrow").stderr
    hive.run("destroy", "narrow", "--yes")


def test_end_of_mode_host_holds_for_a_running_agent_once_it_is_restarted_and_screens_say_so(
    hive: HiveProcess, model: ScriptedModel, mara: Person
) -> None:
    write(hive, "hive.toml", SETTINGS.format(model.url, "ask"))
    eventually(lambda: hive.ask("state")["network_mode"] == "ask", "the new mode is read")
    hive.run("restart", "manager")
    assert "coder: on the host's network without walls until restarted" in hive.run("status").replace("\n", " ")
    assert badge_everywhere(mara)
    assert "on the host's network until the agent is restarted" in mara.get("/agent/coder/", headers=HTML).text
    hive.run("restart", "coder")
    assert turn(hive, model, NETWORK).split() == ["1", "http://127.0.0.1:3199"]
    assert json.dumps(hive.ask("state")).count('"network": "own"') == 2
    assert not badge_everywhere(mara)
    assert "host's network" not in hive.run("status")
