"""Names that change their answers: the address that was checked is the address that is connected."""

import asyncio
import ipaddress
from collections.abc import Iterator

import pytest

from hive.broker.addresses import Address, NotResolved
from hive.broker.agent import Agent, Failed, Refused
from hive.broker.files import Files
from hive.broker.wire import FromBroker, Policy

from .lab import Web


class Resolver:
    """Gives each answer in turn, then the last one for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def __call__(self, host: str, port: int) -> list[Address]:
        self.asked += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if not answer:
            raise NotResolved(f"{host} has no address")
        return [ipaddress.ip_address(one) for one in answer]


def agent(resolver: Resolver, *allow: str) -> Agent:
    reports: list[FromBroker] = []
    one = Agent("a", reports.append, resolver, Files(reports.append))
    one.set_policy(Policy(agent="a", mode="listed", allow=allow))
    return one


def outcome(one: Agent, host: str, port: int) -> str:
    async def connect() -> str:
        try:
            _, writer = await one.connect(host, port)
        except (Refused, Failed) as error:
            return type(error).__name__
        writer.close()
        return "connected"

    return asyncio.run(connect())


@pytest.fixture
def web() -> Iterator[Web]:
    with Web() as one:
        yield one


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "fd00::1", "10.1.2.3"])
def test_listed_name_with_private_address_is_refused(web: Web, address: str) -> None:
    assert outcome(agent(Resolver([address]), "rebind.example"), "rebind.example", web.port) == "Refused"
    assert web.seen == []


def test_name_is_resolved_once_per_connection_and_that_address_connected(web: Web) -> None:
    resolver = Resolver(["127.0.0.1"], ["10.0.0.1"])
    one = agent(resolver, "rebind.example", web.entry)
    assert outcome(one, "rebind.example", web.port) == "connected", "the address itself is listed"
    assert resolver.asked == 1
    assert outcome(one, "rebind.example", web.port) == "Refused", "the next answer is checked anew"


def test_private_addresses_among_public_ones_are_never_connected(web: Web) -> None:
    one = agent(Resolver(["127.0.0.1", "::1"], ["::1", "127.0.0.1"]), "mixed.example", "[::1]:1")
    assert outcome(one, "mixed.example", web.port) == "Refused"
    assert outcome(one, "mixed.example", web.port) == "Refused"


def test_denied_address_is_refused_under_every_name(web: Web) -> None:
    one = agent(Resolver(["127.0.0.1"]), "name.example", web.entry)
    one.set_policy(Policy(agent="a", mode="open", allow=("name.example", web.entry), deny=("127.0.0.1",)))
    assert outcome(one, "name.example", web.port) == "Refused"


def test_name_without_address_fails(web: Web) -> None:
    assert outcome(agent(Resolver([]), "gone.example"), "gone.example", 80) == "Failed"
