"""The OS tree that tests boot: built once on a machine, in the user's cache folder, and shared by all test runs."""

import fcntl
import hashlib
import os
import shutil
from pathlib import Path

from hive.runtimes import images, os_tree

RECIPE = repr((images.PACKAGES, images.MASKED, images.JOURNAL, images.suite_of_host()))
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hive-tests"
FOLDER = CACHE / f"image-{hashlib.sha256(RECIPE.encode()).hexdigest()[:12]}"


def ensure() -> None:
    """Build the tree if this host can and it is missing. Concurrent test runs build it once."""
    if FOLDER.exists() or os_tree.host_lacks("nspawn") or shutil.which("mmdebstrap") is None:
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not FOLDER.exists():
            images.build(FOLDER)
