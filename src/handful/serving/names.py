"""Names of tasks and labels that people can read, and that mean the same however they were typed."""

import unicodedata

from handful.errors import UserError

LONGEST = 128
DIRECTIONS = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the direction of writing, so that a name shows as another one."""


def checked_name(name: str, noun: str = "name") -> str:
    """The name in Unicode's composed form; `UserError` if it is empty, too long or has characters that hide."""
    composed = unicodedata.normalize("NFC", name)
    if not 1 <= len(composed) <= LONGEST or composed.isspace():
        raise UserError(f"A {noun} has 1 to {LONGEST} characters, not {len(composed)}.")
    for character in composed:
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in DIRECTIONS:
            raise UserError(f"A {noun} must not contain control or direction characters, but has {character!a}.")
    return composed
