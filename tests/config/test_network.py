"""The network of an agent: its file narrows the host's settings, and the build refuses what exceeds them."""

from typing import Any

import pytest

from hive.config import agent_file
from hive.config.agent_file import AgentFile, AgentLimits, AgentNetwork
from hive.config.network import network_of, refuse_beyond
from hive.errors import BadRequest
from hive.network_settings import NetworkSettings, Price
from hive.settings import Settings

HOST = NetworkSettings(mode="ask", allow=("docs.example", "*.example.org:443"))


@pytest.mark.parametrize(
    ("host", "agent", "mode", "allow"),
    [
        (HOST, AgentNetwork(), "ask", HOST.allow),
        (HOST, AgentNetwork(mode="listed"), "listed", HOST.allow),
        (HOST, AgentNetwork(mode="open"), "ask", HOST.allow),
        (HOST, AgentNetwork(allow=("docs.example:443",)), "ask", ("docs.example:443",)),
        (HOST, AgentNetwork(allow=("other.example", "a.example.org:443")), "ask", ("a.example.org:443",)),
        (HOST, AgentNetwork(mode="none", allow=()), "none", ()),
        (NetworkSettings(mode="open"), AgentNetwork(mode="listed", allow=("a.example",)), "listed", ("a.example",)),
        (NetworkSettings(mode="host"), AgentNetwork(), "host", ()),
    ],
)
def test_agent_file_only_narrows_the_host(host: NetworkSettings, agent: AgentNetwork, mode: str, allow: Any) -> None:
    assert network_of(host, agent) == NetworkSettings(mode=mode, allow=allow)


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (AgentFile(network=AgentNetwork(mode="open")), "network.mode = 'open' is wider than the host's mode 'ask'"),
        (
            AgentFile(network=AgentNetwork(allow=("x.example",))),
            "network.allow lists x.example, which hive.toml does not",
        ),
        (AgentFile(network=AgentNetwork(allow=("*.org:443",))), "network.allow lists *.org:443"),
        (AgentFile(limits=AgentLimits(budget_usd=1.0)), "limits.budget_usd needs prices"),
    ],
)
def test_build_refuses_what_exceeds_the_host(file: AgentFile, says: str) -> None:
    with pytest.raises(BadRequest) as refused:
        refuse_beyond(Settings(network=HOST), file)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_build_accepts_what_the_host_gives() -> None:
    settings = Settings(network=HOST, prices={"m": Price(input=1.0)})
    narrowed = AgentNetwork(mode="listed", allow=("docs.example", "a.example.org:443", "*.b.example.org:443"))
    refuse_beyond(settings, AgentFile(network=narrowed, limits=AgentLimits(budget_usd=1.0)))
    refuse_beyond(Settings(network=NetworkSettings(mode="open")), AgentFile(network=AgentNetwork(allow=("x.example",))))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[network]\nmode = "host"', "agent.toml:2: network.mode: must be one of none, listed, ask, open"),
        ('[network]\nmod = "ask"', "did you mean mode"),
        ('[network]\nallow = ["a b"]', "agent.toml:2: network.allow: "),
        ("[limits]\nbudget_usd = 0", "limits.budget_usd: must be more than 0"),
    ],
)
def test_bad_file_is_refused_with_the_line(text: str, says: str) -> None:
    with pytest.raises(BadRequest) as refused:
        agent_file.parse(text.encode())
    assert says in str(refused.value)
