"""The payload of all appends: one message of about 250 bytes of JSON. Imports only the standard library."""

import random
from typing import Final

WORDS: Final = ("agent", "turn", "message", "review", "merge", "branch", "failing", "test", "please", "look", "parser")
BODY_CHARS: Final = 190
"""With its keys and names, a message of this length is about 250 bytes of JSON."""
TEXTS: Final = 512
"""Number of different bodies, used in turn."""


def bodies() -> list[str]:
    """The same on every run."""
    rng = random.Random(1)
    return [_text(rng) for _ in range(TEXTS)]


def _text(rng: random.Random) -> str:
    text = ""
    while len(text) < BODY_CHARS:
        text += rng.choice(WORDS) + " "
    return text[:BODY_CHARS]


def as_json(id: int, body: str) -> str:
    """The JSON that the log stores, for peers that store plain text."""
    return f'{{"id":{id},"from":"agent-{id % 64}","to":"agent-{id % 61}","body":"{body}"}}'
