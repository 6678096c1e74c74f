"""One broker for each module of tests; each test has an agent of its own."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtimes.contract import Lab, usable

from hive.runtimes.bubblewrap import BubblewrapRuntime

from .inside import Inside
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


@pytest.fixture(scope="module")
def inside(lab: BrokerLab) -> Iterator[Inside]:
    with tempfile.TemporaryDirectory(prefix="hive-") as folder:
        one = Lab(usable(BubblewrapRuntime()), Path(folder).resolve())
        yield Inside(one, lab)
        one.close()
