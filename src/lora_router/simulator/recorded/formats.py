"""The formats of recorded traffic, and which one a file has."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TextIO

from lora_router.simulator.recorded import azure, burstgpt, models_csv, mooncake
from lora_router.simulator.recorded.recording import (
    LONGEST_LINE,
    RecordedRequest,
    Recording,
    TraceError,
    recording_of,
)

_MOST_BLANK = 1000
"""Blank lines before the first one that tells the format."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format of files."""

    columns: tuple[str, ...]
    """Columns of a CSV file, or keys of a JSON object."""
    read: Callable[[Path, Iterable[str]], Iterator[RecordedRequest]]
    is_csv: bool = True
    names_models: bool = False


FORMATS = {
    models_csv.NAME: Format(models_csv.COLUMNS, models_csv.read, names_models=True),
    mooncake.NAME: Format(mooncake.KEYS, mooncake.read, is_csv=False),
    azure.NAME: Format(azure.COLUMNS, azure.read),
    burstgpt.NAME: Format(burstgpt.COLUMNS, burstgpt.read),
}


def read_recording(path: Path, format_name: str | None = None) -> Recording:
    """Read a file.

    Args:
        path: The file.
        format_name: One of ``FORMATS``. ``None``: the file's first line tells.

    Raises:
        TraceError: The file cannot be read, or a line is not what the format allows.
    """
    if format_name is not None and format_name not in FORMATS:
        raise TraceError(
            f"--trace-format: must be one of {', '.join(FORMATS)}, not {format_name!r}"
        )
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            head = _head(file)
            name = format_name or _detected(path, head)
            chosen = FORMATS[name]
            requests = chosen.read(path, chain(head, file))
            return recording_of(path, requests, names_models=chosen.names_models, form=name)
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise TraceError(f"{path}: cannot be read: it is not UTF-8") from None


def _head(file: TextIO) -> list[str]:
    """Read the lines up to the first one that is not blank."""
    head = [file.readline(LONGEST_LINE + 1)]
    while head[-1].isspace() and len(head) <= _MOST_BLANK:
        head.append(file.readline(LONGEST_LINE + 1))
    return head


def _detected(path: Path, head: Sequence[str]) -> str:
    first = head[-1]
    if first.lstrip().startswith("{"):
        return mooncake.NAME
    try:
        columns = set(next(csv.reader([first]), ()))
    except csv.Error:
        columns = set()
    for name, each in FORMATS.items():
        if each.is_csv and columns.issuperset(each.columns):
            return name
    known = "; ".join(
        f"{name}: {'columns' if each.is_csv else 'one JSON object a line with'} "
        f"{', '.join(each.columns)}"
        for name, each in FORMATS.items()
    )
    raise TraceError(f"{path}, line {len(head)}: is the beginning of no known format ({known})")
