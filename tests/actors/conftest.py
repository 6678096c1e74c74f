"""Fixtures: a journal with a manual clock, and agents with real processes. All actors stop after each test."""

from collections.abc import Iterator
from pathlib import Path

import pykka
import pytest

from .containers import Containers
from .journal_environment import JournalEnvironment


@pytest.fixture
def env(tmp_path: Path) -> Iterator[JournalEnvironment]:
    one = JournalEnvironment(tmp_path)
    yield one
    others = [ref for ref in pykka.ActorRegistry.get_all() if ref != one.journal]
    for ref in others:
        ref.stop()
    one.close()


@pytest.fixture
def containers(tmp_path: Path, env: JournalEnvironment) -> Iterator[Containers]:
    one = Containers(tmp_path, env)
    yield one
    one.close()


@pytest.fixture
def coder(containers: Containers) -> "pykka.ActorRef[object]":
    return containers.spawned()
