"""The fixture `env`: a journal with a manual clock. Stops all actors after each test."""

from collections.abc import Iterator
from pathlib import Path

import pykka
import pytest

from .journal_environment import JournalEnvironment


@pytest.fixture
def env(tmp_path: Path) -> Iterator[JournalEnvironment]:
    one = JournalEnvironment(tmp_path)
    yield one
    others = [ref for ref in pykka.ActorRegistry.get_all() if ref != one.journal]
    for ref in others:
        ref.stop()
    one.close()
