"""Fixtures: the repositories of one agent, made with real git."""

from pathlib import Path

import pytest

from hive.config.repositories import Repositories
from hive.paths import Paths

from .proposing_manager import Manager


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "state", tmp_path / "run")


@pytest.fixture
def repositories(paths: Paths) -> Repositories:
    made = Repositories(paths)
    made.ensure("coder")
    return made


@pytest.fixture
def manager(repositories: Repositories, paths: Paths) -> Manager:
    return Manager(paths.proposed("coder"))
