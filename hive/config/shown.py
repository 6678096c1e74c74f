"""Text from strangers made safe to show: what is invisible or moves other text becomes an escape."""

import re
import unicodedata
from typing import Final

_KEPT: Final = frozenset("\n\t")
_HIDING_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
_BLANK_LETTERS: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0\u034f\u17b4\u17b5")
"""Drawn as nothing though Unicode calls them letters, symbols or marks."""
_VARIATION_SELECTORS: Final = (range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0), range(0x180B, 0x1810))
_NOT_ASCII: Final = re.compile(r"[^\n\t\x20-\x7e]")


def shown(text: str | bytes) -> str:
    """Control and bidirectional characters, invisible ones and bytes that are no UTF-8 as `\\x1b`, `\\u202e`."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    return _NOT_ASCII.sub(lambda found: _escaped(found[0]), text)


def _escaped(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # A byte that surrogateescape smuggled in.
        return f"\\x{number - 0xDC00:02x}"
    hides = (
        unicodedata.category(character) in _HIDING_CATEGORIES
        or character in _BLANK_LETTERS
        or any(number in selectors for selectors in _VARIATION_SELECTORS)
    )
    if not hides:
        return character
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
