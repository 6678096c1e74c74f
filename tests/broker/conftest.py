"""One broker for each module of tests; each test has an agent of its own."""

from collections.abc import Iterator

import pytest

from .lab import BrokerLab, Web


@pytest.fixture(scope="module")
def lab() -> Iterator[BrokerLab]:
    one = BrokerLab()
    yield one
    one.close()


@pytest.fixture
def web() -> Iterator[Web]:
    with Web() as one:
        yield one
