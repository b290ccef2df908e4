"""Rows that viewers have, and what changed in them since they were sent."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Row: TypeAlias = dict[str, Any]
Key: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of event: which page it shows, and how its rows change."""

    event: str
    page: str
    """The page under ``/debug``, and the field of it that has the rows."""
    key: tuple[str, ...]
    """The fields that tell rows apart."""
    most: int
    """Rows that viewers have. Further ones are left out."""
    queries: tuple[Mapping[str, str], ...] = ({},)
    """The page is read with each of them. The first row with a key counts."""
    every: int = 1
    """It is read in each so many rounds."""
    unlike: frozenset[str] = frozenset()
    """Fields that differ each time, and that a viewer can continue by itself."""
    settle: Callable[[Row], None] = lambda _: None
    """Makes values coarser, so that a row which a viewer would see as the same is the same."""
    urgent: Callable[[Row], bool] | None = None
    """Which rows are kept if there are too many."""


@dataclass(slots=True)
class Change:
    """What viewers are told."""

    rows: list[Row]
    """New rows, and of others the key and the fields that changed."""
    gone: list[Key]
    """The keys of rows that are no longer there."""
    more: int


class ViewedRows:
    """The rows of one part, as viewers have them."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._rows: dict[Key, Row] = {}
        self.more = 0
        """How many rows viewers do not have."""

    def all(self) -> Change:
        """Return everything, for a viewer who has nothing."""
        return Change(list(self._rows.values()), [], self.more)

    def update(self, rows: Iterable[Row], more: int) -> Change | None:
        """Take in the rows of the page. Returns what changed; ``None``: nothing.

        Args:
            rows: The rows, which are kept.
            more: How many rows the page left out.
        """
        part = self._part
        new: dict[Key, Row] = {}
        for row in rows:
            part.settle(row)
            new.setdefault(tuple(row[name] for name in part.key), row)
        left_out = len(new) - part.most
        if left_out > 0:
            new = self._first(new)
        change = Change([], [], more + max(0, left_out))
        before = self._rows
        for key, row in new.items():
            known = before.get(key)
            if known is None:
                change.rows.append(row)
            elif known != row and (changed := self._difference(known, row)):
                change.rows.append({**{name: row[name] for name in part.key}, **changed})
        change.gone = [key for key in before if key not in new]
        is_same = not change.rows and not change.gone and change.more == self.more
        self._rows, self.more = new, change.more
        return None if is_same else change

    def _first(self, rows: dict[Key, Row]) -> dict[Key, Row]:
        items = list(rows.items())
        urgent = self._part.urgent
        if urgent is not None:
            items.sort(key=lambda item: not urgent(item[1]))
        return dict(items[: self._part.most])

    def _difference(self, known: Row, row: Row) -> Row:
        unlike = self._part.unlike
        return {
            name: value
            for name, value in row.items()
            if name not in unlike and known.get(name) != value
        }
