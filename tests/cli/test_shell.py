"""Completion scripts and the man page are made from the commands and accepted by the programs that read them."""

import shutil
import subprocess

import pytest
from missing_tool import missing_tool

from hive.cli import main as cli

from .conftest import PATIENCE_S, Run


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_names_the_program(hive: Run, shell: str) -> None:
    done = hive("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert "_HIVE_COMPLETE=complete_" in done.stdout


def test_bash_loads_its_completion_script(hive: Run) -> None:
    script = hive("completion", "bash").stdout
    command = ["bash", "--noprofile", "--norc", "-euc", f"{script}\ncomplete -p hive"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == "complete -o default -F _hive_completion hive"


def test_unknown_shell_is_wrong_usage(hive: Run) -> None:
    assert hive("completion", "csh").returncode == 2


def test_man_page_has_every_command_and_no_roff_warning(hive: Run) -> None:
    page = hive("man").stdout
    for name in cli.MODULES:
        assert f".B hive {name}".replace("-", "\\-") in page
    if (groff := shutil.which("groff")) is None:
        missing_tool("groff is not installed; it checks the man page")
    done = subprocess.run(
        [groff, "-man", "-ww", "-Tascii"], input=page, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "hive audit verify" in done.stdout
