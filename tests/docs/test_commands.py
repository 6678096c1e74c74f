"""Every command on a page of the documentation is run against a real daemon, and prints what the page shows."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from missing_tool import missing_tool
from system.hive_process import HiveProcess, eventually

from hive.errors import Unavailable
from hive.runtimes.choose import choose
from hive.scripted_model import ScriptedModel

from .model import SCRIPTS
from .pages import ROOT, Command, blocks, commands, pages, pattern

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

COMMAND_MAX_S = 120.0
"""Far more than any command on a page takes; only a defect waits for it."""
LANGUAGES = {"console", "toml", "text", "python", "json"}
"""Of blocks. A block in another language would hide commands from this test."""
SHOWS = {"status", "approvals", "inbox", "log", "config", "questions", "search", "audit"}
"""Commands that change nothing. They are repeated until an agent has done what the page shows."""
WITH_COMMANDS = [page for page in pages() if commands(page)]


def name(page: Path) -> str:
    return page.relative_to(ROOT / "docs").with_suffix("").as_posix()


@pytest.mark.parametrize("page", pages(), ids=name)
def test_commands_are_in_blocks_that_are_run(page: Path) -> None:
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{page.name}:{block.line}: use a console block for commands"
        if block.language == "text":
            assert not re.search(r"^(\$ )?hive ", block.text, re.MULTILINE), f"{page.name}:{block.line}"


def is_start(command: Command) -> bool:
    return command.text.split()[:2] == ["hive", "up"]


class Reader:
    """Somebody who follows a page: a folder, a shell for each command, and a hive once `hive up` is typed."""

    def __init__(self, hive: HiveProcess):
        self.hive = hive
        self.home = hive.folder / "home"
        self.home.mkdir()

    def follow(self, command: Command) -> None:
        if is_start(command):
            self.hive.up()
            return
        self.hive.paths.state.mkdir(exist_ok=True)
        wanted = pattern(command.output) if command.output else None
        done = self._run(command)
        if wanted is None or wanted.fullmatch(done.stdout):
            assert done.returncode == 0, f"{command.place}: {command.text}\n{done.stdout}{done.stderr}"
            return

        def matches() -> bool:
            nonlocal done
            done = self._run(command)
            return wanted.fullmatch(done.stdout) is not None

        # What an agent does comes in its own time: a page shows what is there in the end.
        try:
            assert command.text.split()[1] in SHOWS
            eventually(matches, command.text)
        except AssertionError:
            shown = "\n".join(command.output)
            raise AssertionError(
                f"{command.place}: {command.text}\n{done.stdout}{done.stderr}is not\n{shown}"
            ) from None

    def _run(self, command: Command) -> "subprocess.CompletedProcess[str]":
        environment = {
            **self.hive.environment(),
            "HOME": str(self.home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COLUMNS": "120",
            "GIT_CONFIG_GLOBAL": "/dev/null",
        }
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-euo", "pipefail", "-c", command.text],
            cwd=self.home,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_MAX_S,
            check=False,
        )


@pytest.fixture
def reader(page: Path) -> Iterator[Reader]:
    try:
        choose()
    except Unavailable as error:
        missing_tool(str(error))
    with ScriptedModel() as model:
        for agent, script in SCRIPTS.get(name(page), {}).items():
            model.play(agent, script)
        hive = HiveProcess(runtime="bubblewrap", model_url=model.url, dashboard=True)
        try:
            yield Reader(hive)
        finally:
            hive.close()


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name)
def test_commands_of_a_page_do_what_it_says(page: Path, reader: Reader) -> None:
    typed = commands(page)
    if not any(is_start(command) for command in typed):
        reader.hive.up()
    for command in typed:
        reader.follow(command)
