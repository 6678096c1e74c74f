"""What the command line and the dashboard ask for: each verb exists, and its request has each key.

A key that a request does not have is ignored by the daemon, so a misspelt one would have no effect.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import hive
from hive.sockets.server import DASHBOARD_VERBS, HOST_VERBS

PACKAGE = Path(hive.__file__).parent
CALLS = frozenset({"ask", "follow", "decided"})
"""Functions whose first text argument is a verb, and whose keywords are the request's keys."""
OF_SESSION = frozenset({"session", "background"})
"""Keys of every request on the dashboard's socket; the session reads them before the request is decoded."""
VERBS = {"cli": HOST_VERBS, "dashboard": DASHBOARD_VERBS}


def asked(folder: str) -> Iterator[tuple[str, str, set[str]]]:
    """Place, verb and keys of each request that is written out."""
    for path in sorted((PACKAGE / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            texts = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            verb = next((text for text in texts if text.isidentifier()), None)
            if name in CALLS and verb is not None:
                keys = {keyword.arg for keyword in node.keywords if keyword.arg is not None}
                yield f"{folder}/{path.name}:{node.lineno}", verb, keys - OF_SESSION


@pytest.mark.parametrize("folder", VERBS)
def test_client_asks_for_known_verbs_with_known_keys(folder: str) -> None:
    wrong, known = [], VERBS[folder]
    for place, verb, keys in asked(folder):
        request = known.get(verb)
        fields = set() if request is None else {one.encode_name for one in msgspec.structs.fields(request.request)}
        if request is None or keys - fields:
            wrong.append((place, verb, keys - fields))
    assert not wrong
    assert len({verb for _, verb, _ in asked(folder)}) > len(known) // 3, "the search finds the requests"
