"""The OS tree that tests boot: built once on a machine, in the user's cache folder, and shared by all test runs."""

import fcntl
import hashlib
import os
import secrets
import shutil
from pathlib import Path

from hive.runtimes import images, os_tree

INCLUDE = ("busybox-static",)
"""For the first program of a stand-in NixOS system."""
RECIPE = repr((INCLUDE, images.PACKAGES, images.MASKED, images.JOURNAL, images.suite_of_host()))
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hive-tests"
FOLDER = CACHE / f"image-{hashlib.sha256(RECIPE.encode()).hexdigest()[:12]}"


def first_uid() -> int:
    """A random range of host users for one hive, above those of systemd's own containers."""
    return 1_900_000_000 + secrets.randbelow(200) * 1_100_000


def settings() -> str:
    """A hive.toml for the runtime nspawn."""
    return f'[runtime]\nimage = "{FOLDER}"\nfirst_uid = {first_uid()}\n'


def ensure() -> None:
    """Build the tree if this host can and it is missing. Concurrent test runs build it once."""
    if FOLDER.exists() or os_tree.host_lacks("nspawn") or shutil.which("mmdebstrap") is None:
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if FOLDER.exists():
            return
        try:
            images.build(FOLDER, include=INCLUDE)
        except images.ImageFailed:  # Debian's packages cannot be reached: the tests that need them are skipped.
            if os.environ.get("CI") == "true":
                raise
