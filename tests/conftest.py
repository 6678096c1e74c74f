"""Hypothesis settings for all tests: no deadline per example, and always the same examples.

`pytest --hypothesis-profile=explore` tries new examples each time.
"""

from hypothesis import HealthCheck, settings

settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("hive", settings.get_profile("explore"), derandomize=True)
settings.load_profile("hive")
