"""One real daemon for all socket tests that do not change it; each test has its own agent."""

import itertools
from collections.abc import Callable, Iterator

import pytest
from system.flooding import WIDE
from system.hive_process import HiveProcess


@pytest.fixture(scope="package")
def standing() -> Iterator[HiveProcess]:
    """A daemon whose agents are plain processes; the manager takes no turns."""
    hive = HiveProcess(limits=WIDE)
    try:
        hive.up()
        hive.ask("set_paused", name="manager", paused=True)
        yield hive
    finally:
        hive.close()


@pytest.fixture(scope="package")
def resting(standing: HiveProcess) -> Callable[[], str]:
    """Names of new agents whose containers do not run, so only the test uses their sockets."""
    numbers = itertools.count(1)

    def agent() -> str:
        name = f"x{next(numbers)}"
        standing.spawn(name)
        standing.ask("stop", scope={"agent_names": [name]})
        standing.ask("set_paused", name=name, paused=False)
        return name

    return agent


@pytest.fixture
def agent(resting: Callable[[], str]) -> str:
    return resting()
