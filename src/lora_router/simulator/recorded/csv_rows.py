"""Rows of a CSV file whose first line that is not blank names the columns."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from lora_router.simulator.recorded.recording import LONGEST_LINE, TraceError

Row = Mapping[str, str | None]
"""Cells by column. ``None``: the line has fewer cells than the first one."""


def csv_rows(
    path: Path, lines: Iterable[str], needed: Iterable[str], optional: Iterable[str] = ()
) -> Iterator[tuple[str, Row]]:
    """Yield where each row stands, for errors, and its cells.

    Args:
        path: The file, for errors.
        lines: Its lines.
        needed: Columns that it must have.
        optional: Columns that are read if it has them. Others are allowed.

    Raises:
        TraceError: A column or a cell is missing, a column that is read is there twice, or the file
            is not CSV.
    """
    reader = csv.DictReader(_short(path, lines))
    columns = tuple(needed)
    try:
        while (names := reader.fieldnames) is not None and not any(map(str.strip, names)):
            reader.fieldnames = None
        found = Counter(names)
        missing = set(columns) - set(found)
        if missing:
            raise TraceError(f"{path}: no column {', '.join(sorted(missing))}")
        for column in (*columns, *optional):
            if found[column] > 1:
                raise TraceError(f"{path}: {column}: there are {found[column]} such columns")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            for column in columns:
                if row[column] is None:
                    raise TraceError(f"{where}: {column}: is missing, the line is too short")
            yield where, row
    except csv.Error as error:
        raise TraceError(f"{path}, line {reader.line_num}: not CSV: {error}") from None


def _short(path: Path, lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if len(line) > LONGEST_LINE:
            raise TraceError(f"{path}, line {number}: longer than {LONGEST_LINE:,} characters")
        yield line
