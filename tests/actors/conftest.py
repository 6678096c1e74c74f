"""Stages for the actors' tests; whatever a test started is gone after it."""

from collections.abc import Iterator
from pathlib import Path

import pykka
import pytest

from .stage import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    one = Stage(tmp_path)
    yield one
    others = [ref for ref in pykka.ActorRegistry.get_all() if ref != one.journal]
    for ref in others:
        ref.stop()
    one.close()
