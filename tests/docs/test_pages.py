"""The pages build without a warning, load nothing from elsewhere, and name only what exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .pages import DOCS, ROOT

BUILD_MAX_S = 300.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=BUILD_MAX_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_in_the_navigation(site: Path) -> None:
    built = {path.relative_to(site).as_posix() for path in site.rglob("index.html")}
    assert "tutorial/index.html" in built
    assert len(built) >= len(list(DOCS.rglob("*.md")))


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|iframe)[^>]+src="(https?:[^"]+)"', page.read_text())
        loaded += re.findall(r'<link[^>]+rel="(?:stylesheet|preconnect)"[^>]+href="(https?:[^"]+)"', page.read_text())
        assert loaded == [], page.name


def test_every_test_that_the_security_model_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/.]+)`", (DOCS / "security.md").read_text())
    assert named
    assert [path for path in named if not (ROOT / path).is_file()] == []
