"""Reservations of host users: no uid belongs to two hives, and the end of a process frees its uids."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hive.errors import Unavailable
from hive.host_users import AGENT_USERS, FREE_RANGES, HELPER_USERS, HostUsers, Reserved, free_first_uid

AGENTS = Reserved("runtime.first_uid", 210_000, AGENT_USERS)
DASHBOARD = Reserved("dashboard.uid", 209_999)


@pytest.fixture
def lock_file(tmp_path: Path) -> Path:
    return tmp_path / "uids.lock"


@pytest.fixture
def first(lock_file: Path) -> Iterator[HostUsers]:
    users = HostUsers(lock_file)
    users.reserve(AGENTS, DASHBOARD)
    yield users
    users.close()


@pytest.mark.parametrize(
    ("wanted", "users", "keys"),
    [
        ([AGENTS, DASHBOARD], "210000-210099, 209999", "runtime.first_uid and dashboard.uid"),
        ([Reserved("runtime.first_uid", 210_099, AGENT_USERS)], "210099-210198", "runtime.first_uid"),
        ([Reserved("dashboard.uid", 210_050), Reserved("runtime.first_uid", 300_000)], "210050", "dashboard.uid"),
    ],
)
def test_overlap_with_another_hive_is_refused_with_the_keys_to_set(
    first: HostUsers, lock_file: Path, wanted: list[Reserved], users: str, keys: str
) -> None:
    second = HostUsers(lock_file)
    with pytest.raises(Unavailable) as refused:
        second.reserve(*wanted)
    assert f"uses the host users {users}. In hive.toml, set {keys} to" in str(refused.value)
    second.close()


def test_own_users_can_be_reserved_again_and_extended(first: HostUsers, lock_file: Path) -> None:
    more = Reserved("runtime.first_uid", AGENTS.first + AGENT_USERS)
    first.reserve(AGENTS, more)
    second = HostUsers(lock_file)
    second.reserve(Reserved("runtime.first_uid", more.first + 1, AGENT_USERS))
    with pytest.raises(Unavailable):
        second.reserve(more)
    second.close()


def test_end_of_a_process_frees_its_users_although_its_children_live(lock_file: Path) -> None:
    holds = (
        "import pathlib, subprocess, sys, time\n"
        "from hive.host_users import HostUsers, Reserved\n"
        "HostUsers(pathlib.Path(sys.argv[1])).reserve(Reserved('runtime.first_uid', 210_000, 100))\n"
        "child = subprocess.Popen(['sleep', '1000'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(1000)\n"
    )
    command = [sys.executable, "-P", "-c", holds, str(lock_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        users = HostUsers(lock_file)
        try:
            with pytest.raises(Unavailable):
                users.reserve(AGENTS)
            process.kill()
            process.wait()
            users.reserve(AGENTS)
        finally:
            users.close()
            process.kill()
            os.kill(child, signal.SIGKILL)


def test_free_range_avoids_used_ranges(lock_file: Path) -> None:
    others = HostUsers(lock_file)
    free = FREE_RANGES[7]
    others.reserve(*(Reserved("runtime.first_uid", first + AGENT_USERS - 1) for first in FREE_RANGES if first != free))
    assert free_first_uid(lock_file) == free
    others.reserve(Reserved("dashboard.uid", free - HELPER_USERS))
    with pytest.raises(Unavailable, match="in use"):
        free_first_uid(lock_file)
    others.close()
