"""How Hypothesis works in every test: no example is too slow for a busy machine, and the examples are always the same.

Whether a change passes is no matter of luck. `pytest --hypothesis-profile=explore` tries new examples each time.
"""

from hypothesis import HealthCheck, settings

settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("hive", settings.get_profile("explore"), derandomize=True)
settings.load_profile("hive")
