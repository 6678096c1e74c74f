"""What holds for all tests: the same Hypothesis examples each time without a deadline, and SIGINT ends children.

`pytest --hypothesis-profile=explore` tries new examples each time.
"""

import signal

from hypothesis import HealthCheck, settings

settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("hive", settings.get_profile("explore"), derandomize=True)
settings.load_profile("hive")

# A shell that runs pytest in the background lets it and its children ignore SIGINT, which tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)
