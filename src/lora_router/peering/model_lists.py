"""Lists of models as messages, in parts, and back."""

from collections.abc import Iterator
from itertools import chain, islice
from typing import Generic, TypeVar

from lora_router.fleet.catalog import Catalog, CatalogBuilder
from lora_router.fleet.catalog_digests import DIGEST_BYTES
from lora_router.fleet.reading_bounds import MAX_MODELS, MAX_NAME_LENGTH
from lora_router.peering.pb.readings_pb2 import ModelList
from lora_router.peering.report_reader import ReportError

PART_MODELS = 2000
"""Models in a part that is sent: about 1 ms of work."""
MAX_PART_MODELS = 4 * PART_MODELS
"""Models in a part that is accepted."""
MAX_LISTS = 256
"""Lists that a receiver remembers."""
MAX_LISTS_BYTES = 128 * 1024 * 1024
"""Approximate memory of these lists."""
_Value = TypeVar("_Value")


class RecentLists(Generic[_Value]):
    """The lists that were sent last on a stream.

    The sender and the receiver keep the same ones, so that the sender knows what it need not send.
    """

    def __init__(self) -> None:
        self._lists: dict[bytes, tuple[int, _Value]] = {}
        """Memory and value by digest, the oldest first."""
        self._bytes = 0

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._lists

    def get(self, digest: bytes) -> _Value | None:
        """Return what is kept for a list."""
        found = self._lists.get(digest)
        return None if found is None else found[1]

    def add(self, digest: bytes, size: int, value: _Value) -> None:
        """Keep something for a list, and forget the oldest lists."""
        lists = self._lists
        if digest in lists:
            return
        lists[digest] = size, value
        self._bytes += size
        while len(lists) > 1 and (len(lists) > MAX_LISTS or self._bytes > MAX_LISTS_BYTES):
            self._bytes -= lists.pop(next(iter(lists)))[0]


def list_parts(catalog: Catalog, digest: bytes) -> Iterator[ModelList]:
    """Yield the parts of a list."""
    models = chain(
        ((name, None) for name in catalog.base_models),
        catalog.adapters.items(),
    )
    number, left = 0, len(catalog)
    while left > 0 or not number:
        part = ModelList(digest=digest, part=number)
        parents: dict[str, int] = {}
        for name, base in islice(models, PART_MODELS):
            if base is None:
                part.base_models.append(name)
            else:
                part.adapters.append(name)
                part.adapter_parents.append(parents.setdefault(base, len(parents)))
        part.parents.extend(parents)
        number, left = number + 1, left - PART_MODELS
        part.more_follows = left > 0
        yield part


class ListReader:
    """Reads the lists of one sender, and remembers them."""

    def __init__(self) -> None:
        self._lists: RecentLists[Catalog] = RecentLists()
        self._builder = CatalogBuilder()
        self._digest = b""
        self._part = 0

    def find(self, digest: bytes) -> Catalog | None:
        """Return the list with a digest, or ``None``."""
        return self._lists.get(digest)

    def read(self, part: ModelList) -> None:
        """Apply a part of a list. A part that continues another list than the last is ignored.

        Raises:
            ReportError: The part is malformed, or exceeds a bound.
        """
        names, parents = part.adapters, part.parents
        if len(part.digest) != DIGEST_BYTES or len(names) != len(part.adapter_parents):
            raise ReportError("malformed", "a list of models is malformed")
        if len(names) + len(part.base_models) > MAX_PART_MODELS or len(parents) > len(names):
            raise ReportError("too-large", "a part of a list of models is too long")
        if not part.part:
            self._builder, self._digest, self._part = CatalogBuilder(), part.digest, 0
        if part.digest != self._digest or part.part != self._part:
            return
        self._part += 1
        for name in part.base_models:
            self._add(name, None)
        for name, position in zip(names, part.adapter_parents, strict=True):
            if position >= len(parents):
                raise ReportError("malformed", "a position is outside its table")
            self._add(name, parents[position])
        if len(self._builder) > MAX_MODELS:
            raise ReportError("too-large", f"a list has more than {MAX_MODELS} models")
        if not part.more_follows:
            self._digest = b""
            catalog = self._builder.catalog()
            self._lists.add(part.digest, catalog.bytes, catalog)

    def _add(self, name: str, base: str | None) -> None:
        if not 0 < len(name) <= MAX_NAME_LENGTH or len(base or "") > MAX_NAME_LENGTH:
            raise ReportError("malformed", "the name of a model is empty or too long")
        self._builder.add(name, base)
