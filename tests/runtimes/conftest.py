"""Fixtures of the runtime tests: `lab` runs under every runtime, `sandboxed_lab` under the isolating ones."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract import Lab, all_runtimes, sandboxed_runtimes, usable

from hive.runtimes.protocol import Runtime


@pytest.fixture
def root() -> Iterator[Path]:
    """A short path (socket paths are limited) with mode 0700."""
    with tempfile.TemporaryDirectory(prefix="hive-") as folder:
        yield Path(folder).resolve()


@pytest.fixture(params=all_runtimes(), ids=lambda runtime: runtime.kind)
def lab(request: pytest.FixtureRequest, root: Path) -> Iterator[Lab]:
    yield from _lab(request.param, root)


@pytest.fixture(params=sandboxed_runtimes(), ids=lambda runtime: runtime.kind)
def sandboxed_lab(request: pytest.FixtureRequest, root: Path) -> Iterator[Lab]:
    yield from _lab(request.param, root)


def _lab(runtime: Runtime, root: Path) -> Iterator[Lab]:
    lab = Lab(usable(runtime), root)
    yield lab
    lab.close()
