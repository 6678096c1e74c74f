"""A search query: words and "phrases" that must all occur; a word that ends with * matches its beginning."""

import re
from typing import Final

import msgspec

from hive.errors import BadRequest

QUERY_MAX_CHARS: Final = 500
_TERM: Final = re.compile(r'"([^"]*)"?|(\S+)')
_WORD: Final = re.compile(r"\w+")


class Query(msgspec.Struct, frozen=True):
    """Terms of one or more words each; a term's words stand beside each other."""

    terms: tuple[tuple[str, ...], ...]
    open_ends: tuple[bool, ...]
    """By term, whether its last word matches as the beginning of a word."""

    @classmethod
    def parsed(cls, text: str) -> "Query":
        """Raises BadRequest: the text is too long or holds no word."""
        if len(text) > QUERY_MAX_CHARS:
            raise BadRequest(f"Search for at most {QUERY_MAX_CHARS} characters.")
        terms, open_ends = [], []
        for phrase, word in _TERM.findall(text):
            if words := tuple(_WORD.findall(phrase or word)):
                terms.append(words)
                open_ends.append(word.endswith("*"))
        if not terms:
            raise BadRequest("Search for at least one word.")
        return cls(tuple(terms), tuple(open_ends))

    def match(self) -> str:
        """As FTS5 reads it: every word is quoted, so nothing of the text is an operator."""
        return " AND ".join(
            f'"{" ".join(words)}"{" *" if is_open else ""}'
            for words, is_open in zip(self.terms, self.open_ends, strict=True)
        )

    def snippet(self, text: str, chars: int) -> str:
        """The part of a text around the first match, on one line."""
        flat = " ".join(text.split())
        pattern = r"[\W_]+".join(map(re.escape, self.terms[0]))
        found = re.search(pattern, flat, re.IGNORECASE)
        middle = found.start() if found else 0
        start = max(0, min(middle - chars // 3, len(flat) - chars))
        end = start + chars
        return ("…" if start else "") + flat[start:end] + ("…" if end < len(flat) else "")
