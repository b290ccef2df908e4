"""Reads a YAML file of settings, with the line number of each setting."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from lora_router.yaml_document import YamlDocumentError, parse_yaml, read_file

MAX_BYTES = 1024 * 1024


class SettingsFileError(ValueError):
    """The file cannot be read, or is not a mapping of settings to values."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting in the file."""

    name: str
    value: object
    place: str
    """``FILE: line N``, or ``FILE`` for a setting that a merge key (``<<``) adds."""


def read_settings_file(file: Path) -> list[Entry]:
    """Return the settings in the file, in its order.

    Raises:
        SettingsFileError: The message names the file and, where it is known, the line.
    """
    try:
        content = read_file(file, max_bytes=MAX_BYTES)
        document = parse_yaml(content)
    except YamlDocumentError as error:
        raise SettingsFileError(f"{file}: {error}") from None
    if document is None:
        return []
    if not isinstance(document, dict):
        raise SettingsFileError(f"{file}: must be a mapping of settings to values")
    lines = dict(_lines_of_keys(content))
    entries = []
    for name, value in document.items():
        place = f"{file}: line {lines[str(name)]}" if str(name) in lines else str(file)
        if not isinstance(name, str):
            raise SettingsFileError(f"{place}: {name}: must be the name of a setting")
        entries.append(Entry(name, value, place))
    return entries


def _lines_of_keys(content: bytes) -> Iterator[tuple[str, int]]:
    """Return each key of a mapping and its line. The first line is 1."""
    depth, is_key = 0, True
    for event in yaml.parse(content, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif depth == 1 and is_key and isinstance(event, yaml.ScalarEvent):
            assert event.start_mark is not None  # noqa: S101 -- the parser sets it
            yield event.value, event.start_mark.line + 1
        if depth == 1 and isinstance(event, yaml.NodeEvent):
            is_key = not is_key
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
