"""Escapes untrusted text for display: invisible characters and characters that reorder text become escapes."""

import re
import unicodedata
from typing import Final

_KEPT: Final = frozenset("\n\t")
_HIDING_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
_BLANK_LETTERS: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0\u034f\u17b4\u17b5")
"""Unicode classes these as letters, symbols or marks, but they render as blanks."""
_VARIATION_SELECTORS: Final = (range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0), range(0x180B, 0x1810))
_NOT_ASCII: Final = re.compile(r"[^\n\t\x20-\x7e]")


def escaped(text: str | bytes) -> str:
    """Replace control, bidirectional and invisible characters and invalid UTF-8 with escapes such as `\\x1b`."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    return _NOT_ASCII.sub(lambda found: _escape(found[0]), text)


def _escape(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # An invalid byte, encoded by surrogateescape.
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
