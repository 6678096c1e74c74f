"""Fixtures for the system tests. Everything that a test starts is stopped and removed after it."""

import os
from collections.abc import Callable, Iterator

import nixos_stand_in
import os_image
import pytest
from missing_tool import missing_tool

from hive.errors import Unavailable
from hive.runtimes.choose import choose
from hive.scripted_model import ScriptedModel

from .hive_process import HiveProcess

MakeHive = Callable[..., HiveProcess]


@pytest.fixture
def make_hive() -> Iterator[MakeHive]:
    """A factory of hives that are not started yet."""
    made: list[HiveProcess] = []

    def make(**options: object) -> HiveProcess:
        made.append(HiveProcess(**options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for hive in made:
        hive.close()


@pytest.fixture
def hive(make_hive: MakeHive) -> HiveProcess:
    """A running hive with the process runtime. The manager is paused."""
    one = make_hive().up()
    one.ask("set_paused", name="manager", paused=True)
    return one


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel() as model:
        yield model


def usable(kind: str) -> str:
    """A kind of runtime. Skips the test if this host cannot run it; fails in CI."""
    if kind == "nspawn":
        os_image.ensure()
    if kind == "nixos":
        if os.geteuid() != 0:
            pytest.skip("only root boots systems")
        nixos_stand_in.ensure()
        if not nixos_stand_in.FOLDER.exists():
            pytest.skip("the stand-in for nixpkgs could not be built")
    try:
        choose(kind, os_image.FOLDER)
    except Unavailable as error:
        missing_tool(str(error))
    return kind


@pytest.fixture
def walls() -> str:
    """The name of the sandboxing runtime. Skips the test if the host has none."""
    return usable("bubblewrap")
