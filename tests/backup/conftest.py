"""A stopped hive with what a backup meets: log, repositories, files of an agent, secrets, hostile names."""

import os
from pathlib import Path

import pytest
from audit import story

from hive.config.repositories import Repositories
from hive.names import MANAGER
from hive.paths import Paths

AGENT = "coder"
SECRETS = {"anthropic.key": "sk-leaked-0123456789", "forge.token": "token-leaked-0123456789"}
OUTSIDE = "this file is outside the state folder"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path / "state", tmp_path / "run")
    story.write(paths.state)
    for name in (MANAGER, AGENT):
        Repositories(paths).ensure(name)
    paths.settings.write_text(
        '[claude]\napi_key_file = "anthropic.key"\n[forge]\nurl = "http://127.0.0.1:9"\ntoken_file = "forge.token"\n'
    )
    for file, secret in SECRETS.items():
        (paths.state / file).write_text(secret)
    home = paths.agent_state(AGENT)
    (home / ".claude").mkdir(parents=True)
    (home / ".claude" / ".credentials.json").write_text(SECRETS["anthropic.key"])
    (home / "notes.md").write_text("The parser is LL(1).\n")
    (home / "big.bin").write_bytes(os.urandom(3 * 1024 * 1024 + 17))
    (home / "run.sh").write_text("#!/bin/sh\n")
    (home / "run.sh").chmod(0o750)
    (tmp_path / "outside").write_text(OUTSIDE)
    (home / "link").symlink_to(tmp_path / "outside")
    (home / "folder-link").symlink_to(tmp_path)
    os.mkfifo(home / "pipe")
    Path(os.fsdecode(os.fsencode(home) + b"/\xff\xfe odd\nname")).write_text("kept as it is")
    (paths.proposed(AGENT) / "draft.txt").write_text("not committed yet")
    return paths
