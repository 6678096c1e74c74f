"""How Hypothesis works in every test: no example is too slow for a busy machine.

Where a change must pass to land, the examples are the same each time; anywhere else every run tries new ones.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "hive",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("CI") == "true",
)
settings.load_profile("hive")
