"""Labs for the runtime tests: one over every runtime, one over those with walls."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract import Lab, all_runtimes, usable, walled_runtimes

from hive.runtimes.protocol import Runtime


@pytest.fixture
def root() -> Iterator[Path]:
    """A short path, because socket paths are bounded, that only its owner may enter."""
    with tempfile.TemporaryDirectory(prefix="hive-") as folder:
        yield Path(folder).resolve()


@pytest.fixture(params=all_runtimes(), ids=lambda runtime: runtime.kind)
def lab(request: pytest.FixtureRequest, root: Path) -> Iterator[Lab]:
    yield from _lab(request.param, root)


@pytest.fixture(params=walled_runtimes(), ids=lambda runtime: runtime.kind)
def walled_lab(request: pytest.FixtureRequest, root: Path) -> Iterator[Lab]:
    yield from _lab(request.param, root)


def _lab(runtime: Runtime, root: Path) -> Iterator[Lab]:
    lab = Lab(usable(runtime), root)
    yield lab
    lab.close()
