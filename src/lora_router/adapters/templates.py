"""Templates: adapters that are declared by a pattern of names, for those who have thousands.

A name that matches is declared when a client first asks for it. So a client's text gets into a
source, and into nothing else, under these rules:

- ``*`` stands for one or more of the characters in ``NAME_CHARACTERS``. No ``/`` is among them: a
  name has as many segments as its pattern.
- No segment of a name begins with a dot. So none is ``..`` or a hidden file.
- The source has ``{name}`` in its path, not in its scheme or host, and begins with a prefix in
  ``adapter_sources``. It is checked again with each name.
"""

import re
from dataclasses import dataclass

from lora_router.adapters.declared import (
    BY_DEMAND,
    TEMPLATE,
    DeclaredAdapter,
    WantedPods,
    is_name,
)
from lora_router.adapters.sources import SCHEME, AllowedSources, SourceError

NAME_CHARACTERS = "A-Z a-z 0-9 . _ ~ + = : -"
"""None of them means anything in a URL or a path beyond itself."""
MAX_TEMPLATES = 100
MAX_ASTERISKS = 8
"""Asterisks of one pattern."""
MAX_PATTERNS = 16
"""Patterns of one template."""
PLACEHOLDER = "{name}"
"""Stands for the name of the adapter in the source of a template."""
PATTERN_RULE = (
    f"1 to 256 characters, each '*', '/' or one of {NAME_CHARACTERS}, with 1 to {MAX_ASTERISKS} "
    "asterisks; '**', an empty segment, and a segment that begins with a dot are not allowed"
)

PATTERN_CHARACTERS = (
    r"(?:[A-Za-z0-9_~+=:*-][A-Za-z0-9._~+=:*-]*/)*[A-Za-z0-9_~+=:*-][A-Za-z0-9._~+=:*-]*"
)
"""Which characters a pattern of names has in which places, as a regular expression."""
PATTERN_ASTERISKS = rf"[^*]*\*(?:[^*]+\*){{0,{MAX_ASTERISKS - 1}}}[^*]*"
"""Where it has asterisks."""
_CHARACTERS = re.compile(PATTERN_CHARACTERS)
_ASTERISKS = re.compile(PATTERN_ASTERISKS)
_NAME = re.compile(
    r"(?:[A-Za-z0-9_~+=:-][A-Za-z0-9._~+=:-]*/)*[A-Za-z0-9_~+=:-][A-Za-z0-9._~+=:-]*"
)
_HOST = re.compile(rf"{SCHEME}[^/]*")


def is_pattern(text: object) -> bool:
    """Return whether a value is a pattern of names: see ``PATTERN_RULE``."""
    return (
        is_name(text)
        and isinstance(text, str)
        and _ASTERISKS.fullmatch(text) is not None
        and _CHARACTERS.fullmatch(text) is not None
    )


def check_template_source(source: str, allowed: AllowedSources) -> None:
    """Raise an error if a text is not the source of a template.

    Args:
        source: The text.
        allowed: The sources from which pods may load.

    Raises:
        SourceError: It is none.
    """
    host = _HOST.match(source)
    path = source if host is None else source[host.end() :]
    filled = source.replace(PLACEHOLDER, "name")
    if PLACEHOLDER not in path or "{" in filled or "}" in filled:
        raise SourceError(f"must contain {PLACEHOLDER} in its path, and no other braces")
    if host is not None and PLACEHOLDER in host[0]:
        raise SourceError(f"must not contain {PLACEHOLDER} before its path")
    allowed.check(filled, TEMPLATE)


@dataclass(frozen=True, slots=True)
class Template:
    """Declares every adapter whose name matches."""

    base_model: str
    names: tuple[str, ...]
    """The patterns."""
    source: str
    """With ``{name}`` in place of the name."""
    pods: WantedPods = BY_DEMAND

    def matches(self, name: str) -> bool:
        """Return whether a name is one of the template's."""
        return (
            is_name(name)
            and _NAME.fullmatch(name) is not None
            and any(_matches(name, pattern) for pattern in self.names)
        )

    def adapter(self, name: str, allowed: AllowedSources) -> DeclaredAdapter | None:
        """Return the adapter with a name; ``None``: the name does not match.

        Args:
            name: The name, which may be any text.
            allowed: The sources from which pods may load.
        """
        if not self.matches(name):
            return None
        source = self.source.replace(PLACEHOLDER, name)
        try:
            allowed.check(source, TEMPLATE)
        except SourceError:
            return None
        return DeclaredAdapter(name, self.base_model, source, self.pods, origin=TEMPLATE)


def _matches(name: str, pattern: str) -> bool:
    """Match segment by segment, each in linear time: names are the clients' choice."""
    names, patterns = name.split("/"), pattern.split("/")
    return len(names) == len(patterns) and all(map(_segment_matches, names, patterns))


def _segment_matches(text: str, pattern: str) -> bool:
    first, *parts = pattern.split("*")
    if not parts:
        return text == pattern
    if not text.startswith(first):
        return False
    at = len(first)
    for part in parts[:-1]:
        # Each asterisk takes at least one character, and the leftmost match leaves most.
        found = text.find(part, at + 1)
        if found < 0:
            return False
        at = found + len(part)
    last = parts[-1]
    return len(text) - len(last) > at and text.endswith(last)
