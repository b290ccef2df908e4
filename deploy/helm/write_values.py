"""Writes what is made from the chart's ``values.yaml``: ``make chart-readme``. A test checks it.

- The table of the chart's README: each value with its default, and with its comment. A value
  without a comment has the description of the schema.
- ``files/defaults.yaml``: what the templates take for a value that a user sets to null, because
  Helm removes such a value with its default.
"""

import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "lora-router"
README = CHART / "README.md"
DEFAULTS = CHART / "files" / "defaults.yaml"
BEGIN, END = "<!-- values: begin (made by `make chart-readme`) -->\n", "<!-- values: end -->"

_KEY = re.compile(r"( *)(\w+):( |$)")
_OPTION = re.compile(r"[a-z][-a-z]*:  *\S")
"""A line of a comment that describes one of several choices."""


@dataclass(frozen=True, slots=True)
class Value:
    """One value of the chart, or a group of values."""

    path: tuple[str, ...]
    default: object
    is_group: bool
    nullable: bool
    """Whether null means something else than the default."""
    description: str


def values() -> list[Value]:
    """Return all values and groups, in the order of ``values.yaml``."""
    text = (CHART / "values.yaml").read_text()
    schema = json.loads((CHART / "values.schema.json").read_text())
    comments = _comments(text)
    return [
        replace(each, description=comments.get(each.path) or each.description)
        for each in _values(yaml.safe_load(text), schema, ())
    ]


def _values(
    given: Mapping[str, Any], schema: Mapping[str, Any], above: tuple[str, ...]
) -> Iterator[Value]:
    for name, default in given.items():
        rules = schema["properties"][name]
        path = (*above, name)
        # Below the settings, and below what Kubernetes defines, nothing is a value of the chart.
        is_group = "properties" in rules and bool(default)
        yield Value(path, default, is_group, _takes_null(rules), rules["description"])
        if is_group:
            yield from _values(default, rules, path)


def _takes_null(rules: Mapping[str, Any]) -> bool:
    return any("null" in each.get("type", ()) for each in (rules, *rules.get("anyOf", ())))


def _comments(text: str) -> dict[tuple[str, ...], str]:
    """Return the comment above each key."""
    found: dict[tuple[str, ...], str] = {}
    place: list[tuple[int, str]] = []
    lines: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            lines.append(stripped[1:])
        elif key := _KEY.match(line):
            indent = len(key[1])
            place = [*(each for each in place if each[0] < indent), (indent, key[2])]
            found[tuple(name for _, name in place)] = _sentences(lines)
            lines = []
        else:
            lines = []
    return found


def _sentences(lines: list[str]) -> str:
    """Return a comment without examples of YAML, with a line for each choice that it describes."""
    text, in_example = "", False
    for line in lines:
        in_example = line.startswith("  - ") or (in_example and line.startswith("    "))
        if not in_example:
            separator = "\n" if text and _OPTION.match(line.strip()) else " "
            text += separator + " ".join(line.split())
    return text.strip()


def table() -> str:
    """Return the table of the values, in Markdown."""
    lines = ["| value | default | description |", "| --- | --- | --- |"]
    for each in values():
        name = ".".join(each.path)
        cells = (
            f"**`{name}`**" if each.is_group else f"`{name}`",
            "" if each.is_group else f"`{json.dumps(each.default)}`",
            each.description.replace("|", "\\|").replace("\n", "<br>"),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def with_table(page: str) -> str:
    """Return the README with its table up to date."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{begin}\n{table()}\n{end}{after}"


def defaults() -> str:
    """Return the defaults by path.

    Not of values whose null has a meaning of its own. These are in the defaults of their groups.
    """
    every = values()
    meaningful = [each.path for each in every if each.nullable and each.default is not None]
    found = {
        ".".join(each.path): deepcopy(each.default)  # Or YAML refers to what is there twice.
        for each in every
        if (
            any(path[: len(each.path)] == each.path for path in meaningful)
            if each.is_group
            else not each.nullable
        )
    }
    note = "# Made from values.yaml by `make chart-readme`. templates/_defaults.tpl reads it.\n"
    return note + yaml.safe_dump(found, sort_keys=False, width=100)


if __name__ == "__main__":
    DEFAULTS.parent.mkdir(exist_ok=True)
    DEFAULTS.write_text(defaults())
    README.write_text(with_table(README.read_text()))
