"""Two hives of root on one host never run agents or dashboards as the same host user."""

import os

import pytest

from .conftest import MakeHive
from .hive_process import HiveProcess

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="only a hive of root has host users of its own"),
]


def sharing_users(make_hive: MakeHive, other: HiveProcess, runtime: str) -> HiveProcess:
    hive = make_hive(runtime=runtime)
    hive.paths.state.mkdir()
    hive.paths.settings.write_text(other.paths.settings.read_text())
    return hive


def test_second_hive_with_the_same_users_is_refused_until_the_first_ends(make_hive: MakeHive, walls: str) -> None:
    first = make_hive(runtime=walls, dashboard=True).up()
    second = sharing_users(make_hive, first, walls)
    refused = second.try_run("up", "--listen", "127.0.0.1:0", "--runtime", walls)
    assert (refused.returncode, refused.stdout, len(refused.stderr.splitlines())) == (1, "", 1)
    assert "Another hive on this host uses the host users" in refused.stderr
    assert (
        "In hive.toml, set dashboard.uid and broker.uid and runtime.first_uid to users that no other hive"
        in refused.stderr
    )
    assert [path.name for path in second.paths.state.iterdir()] == ["hive.toml"]
    first.kill()
    second.up()
    assert second.row("manager")["running"]


def test_hives_without_a_sandbox_share_no_users(make_hive: MakeHive) -> None:
    first = make_hive(dashboard=True).up()
    second = sharing_users(make_hive, first, "process").up()
    second.down()
