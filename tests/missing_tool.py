"""What a test does on a host that lacks a tool: skip with the reason, or fail where the tool must be there."""

import os
from typing import NoReturn

import pytest


def missing_tool(reason: str) -> NoReturn:
    """Skip the test on a user's machine; fail it under CI, which installs every tool."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
