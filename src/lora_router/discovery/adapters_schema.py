"""States in JSON Schema what ``adapters_list`` accepts, for the values of the chart.

So Helm refuses an entry that the router would refuse. The templates of the chart check what depends
on other entries or values, and sources and selectors, whose patterns they get from
``adapters_rules``.

The regular expressions are those of Go, which Helm uses. They have classes of Unicode, and Python's
have none.
"""

import re
from typing import Any

from lora_router.adapters.declared import (
    MAX_DECLARED,
    MAX_NAME_LENGTH,
    MAX_SOURCE_LENGTH,
    VERSION_MARK,
)
from lora_router.adapters.sources import MAX_PREFIXES, PREFIX_PATTERN, PREFIX_RULE, SCHEME
from lora_router.adapters.templates import (
    MAX_PATTERNS,
    MAX_TEMPLATES,
    PATTERN_ASTERISKS,
    PATTERN_CHARACTERS,
    PLACEHOLDER,
)
from lora_router.discovery.adapters_list import (
    ADAPTER_KEYS,
    MAX_ALIASES,
    MAX_COPIES,
    MAX_MODEL_LENGTH,
    MAX_SHARE,
    POD_KEYS,
    TEMPLATE_KEYS,
)
from lora_router.routing.selector import MAX_LENGTH, MAX_PREFIX_LENGTH, selector_pattern

Schema = dict[str, Any]

MAX_EXACT = 2**53 - 1
"""Helm reads numbers as floating-point numbers. It does not read larger ones exactly."""

_UNPRINTABLE = r"\p{Z}\p{C}"
"""White space and control characters, in a class of characters."""
_NAMED = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_NAME_LENGTH,
    "pattern": f"^[^{_UNPRINTABLE},{VERSION_MARK}]*$",
}
_BASE_MODEL = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_MODEL_LENGTH,
    "pattern": f"^( |[^{_UNPRINTABLE}])*$",
}
_SOURCE = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_SOURCE_LENGTH,
    "pattern": f"^ *[^{_UNPRINTABLE}]( |[^{_UNPRINTABLE}])*$",
}
_COPIES = {
    "type": ["string", "integer", "null"],
    "pattern": "^all$",
    "minimum": 1,
    "maximum": MAX_COPIES,
}
_POD = {"selector": {"type": ["string", "null"], "maxLength": MAX_LENGTH}, "copies": _COPIES}
_PODS = {
    **_COPIES,
    "type": ["string", "integer", "object", "null"],
    "additionalProperties": False,
    "properties": {key: _POD[key] for key in POD_KEYS},
}
_PATTERN = {
    "maxLength": MAX_NAME_LENGTH,
    "allOf": [{"pattern": f"^{PATTERN_CHARACTERS}$"}, {"pattern": f"^{PATTERN_ASTERISKS}$"}],
}
_BRACES = rf"^[^{{}}]*({re.escape(PLACEHOLDER)}[^{{}}]*)+$"
"""A template's source has braces only around the placeholder."""

_ADAPTER = {
    "name": _NAMED,
    "base_model": _BASE_MODEL,
    "source": _SOURCE,
    "pods": _PODS,
    "pinned": {"type": "boolean"},
    # Of an empty text, the pattern demands nothing: an adapter without a version.
    "version": {
        **_NAMED,
        "type": ["string", "integer"],
        "minLength": 0,
        "minimum": -MAX_EXACT,
        "maximum": MAX_EXACT,
    },
    "share": {"type": "integer", "minimum": 0, "maximum": MAX_SHARE},
    "aliases": {"type": "array", "maxItems": MAX_ALIASES, "uniqueItems": True, "items": _NAMED},
}
_TEMPLATE = {
    "base_model": _BASE_MODEL,
    "names": {
        "type": ["string", "array"],
        **_PATTERN,
        "minItems": 1,
        "maxItems": MAX_PATTERNS,
        "items": {"type": "string", **_PATTERN},
    },
    "source": {
        **_SOURCE,
        "allOf": [
            {"pattern": _BRACES},
            {"if": {"pattern": f"^{SCHEME}"}, "then": {"pattern": f"^{SCHEME}[^/{{}}]*/"}},
        ],
    },
    "pods": _PODS,
}


def adapters_schema() -> dict[str, Schema]:
    """Return the schemas of a list of adapters, of templates, and of prefixes of sources."""
    return {
        "list": {
            "type": "array",
            "maxItems": MAX_DECLARED,
            "items": _entry(ADAPTER_KEYS, _ADAPTER, ("name", "base_model", "source")),
        },
        "templates": {
            "type": "array",
            "maxItems": MAX_TEMPLATES,
            "items": _entry(TEMPLATE_KEYS, _TEMPLATE, ("base_model", "names", "source")),
        },
        "sources": {"type": "array", "maxItems": MAX_PREFIXES, "items": _SOURCE},
    }


def adapters_rules() -> dict[str, dict[str, str]]:
    """Return the patterns that the chart's templates compare, and what they say of others."""
    return {
        "source": {"pattern": f"^(?:{PREFIX_PATTERN})$", "rule": PREFIX_RULE},
        "selector": {
            "pattern": f"^{selector_pattern()}$",
            "forbidden": f"[-a-z0-9.]{{{MAX_PREFIX_LENGTH + 1}}}/",
            "rule": "a Kubernetes label selector",
        },
    }


def _entry(keys: tuple[str, ...], properties: Schema, required: tuple[str, ...]) -> Schema:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": {key: properties[key] for key in keys},
    }
