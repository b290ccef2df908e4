"""Converts what a file, a variable or a flag says into what a setting holds.

A value from the environment or from a flag is always text. In a file, YAML has read the value
already, and not always as it was meant. A value of another kind is returned as it is: the check of
its type follows.
"""

import re

from lora_router.yaml_document import WrittenNumber

_NO_WEIGHT = re.compile(r"[+-][0-9.]+|[0-9]*\.[0-9]+")
"""Numbers that are no weights. They are not taken for the end of a model's name."""
_BASE = re.compile(r"[+-]?0[xb]", re.IGNORECASE)
"""Numbers that are meant as what YAML reads them as."""


def switched(value: object) -> object:
    """Replace what YAML reads ``on`` and ``off`` as."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def listed(value: object) -> object:
    """Split ``a,b``. A value from the environment or from a flag is always text."""
    return _items(value) if isinstance(value, str) else value


def _items(text: str) -> list[str]:
    """Split text at commas. Commas and spaces alone are a mistake, and not an empty list."""
    items = [item.strip() for item in text.split(",") if item.strip()]
    if text and not items:
        raise ValueError("must have an item")
    return items


def joined(value: object) -> object:
    """Join a list from YAML to ``a,b``: it may be written as the lists of other settings."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ",".join(value)
    return value


def mapped(value: object) -> object:
    """Split ``a=1,b=2``. Convert numbers from YAML to text."""
    if isinstance(value, str):
        pairs = [item.partition("=") for item in _items(value)]
        if not all(equals for _, equals, _ in pairs):
            raise ValueError("must be name=value,name=value")
        named = {key.strip(): text.strip() for key, _, text in pairs}
        if len(named) < len(pairs):
            raise ValueError("must have each name once")
        return named
    if isinstance(value, dict):
        return {key: _digits(item) for key, item in value.items()}
    return value


def _digits(value: object) -> object:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


def number(value: object) -> object:
    """Return a number, or its text, as it was written."""
    # YAML reads `yes` and `on` as booleans, which Python treats as the numbers 0 and 1.
    if isinstance(value, bool):
        raise ValueError("must be a number")
    # YAML reads 010 as 8 and 1:30 as 90. What was written counts, as in the environment.
    if isinstance(value, WrittenNumber) and _BASE.match(value.written) is None:
        return value.written
    return value


def rewrites(value: object) -> object:
    """Read ``name=target:weight|target:weight,…``. A target without a weight has weight 1."""
    if isinstance(value, str):
        value = mapped(value)
    if not isinstance(value, dict):
        return value
    return {
        name: _targets(targets) if isinstance(targets, str) else targets
        for name, targets in value.items()
    }


def _targets(text: str) -> dict[str, str]:
    """Read ``target:weight|target:weight``. Names may contain colons, too."""
    found: dict[str, str] = {}
    for each in text.split("|"):
        name, _, weight = each.strip().rpartition(":")
        if name and _NO_WEIGHT.fullmatch(weight):
            raise ValueError("must have whole weights")
        weighted = bool(name) and weight.isascii() and weight.isdigit()
        target = name if weighted else each.strip()
        if target in found:
            raise ValueError("must have each target once")
        found[target] = weight if weighted else "1"
    return found
