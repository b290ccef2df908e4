"""Digests of catalogs, by which processes tell each other which models a pod serves.

``Catalog.fingerprint`` differs from process to process. A digest is the same in all of them.
"""

from collections.abc import Generator, Iterator
from hashlib import blake2b
from itertools import islice
from weakref import WeakKeyDictionary, WeakValueDictionary

from lora_router.fleet.catalog import Catalog

DIGEST_BYTES = 16
_MODELS_IN_A_STEP = 1000
"""Models that are hashed in one step: about half a millisecond."""


class CatalogDigests:
    """The digests of the catalogs in use, each computed once."""

    def __init__(self) -> None:
        self._digests: WeakKeyDictionary[Catalog, bytes] = WeakKeyDictionary()
        self._catalogs: WeakValueDictionary[bytes, Catalog] = WeakValueDictionary()

    def known(self, catalog: Catalog) -> bytes | None:
        """Return the digest of a catalog if it has been computed."""
        return self._digests.get(catalog)

    def find(self, digest: bytes) -> Catalog | None:
        """Return the catalog with a digest, if it is in use and its digest has been computed."""
        return self._catalogs.get(digest)

    def of(self, catalog: Catalog) -> bytes:
        """Return the digest of a catalog."""
        steps = self.in_steps(catalog)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                digest: bytes = end.value
                return digest

    def in_steps(self, catalog: Catalog) -> Generator[None, None, bytes]:
        """Compute the digest of a catalog in steps, so that requests are served in between."""
        digest = self._digests.get(catalog)
        if digest is not None:
            return digest
        hashed = blake2b(b"%d\n" % len(catalog.base_models), digest_size=DIGEST_BYTES)
        parts = _parts(catalog)
        while piece := "".join(islice(parts, _MODELS_IN_A_STEP)):
            # Names may contain what UTF-8 does not encode.
            hashed.update(piece.encode("utf-8", "surrogatepass"))
            yield
        digest = hashed.digest()
        self._digests[catalog] = digest
        self._catalogs[digest] = catalog
        return digest


def _parts(catalog: Catalog) -> Iterator[str]:
    """Yield the models in the order of their names. Lengths tell where a name ends."""
    for name in sorted(catalog.base_models):
        yield f"{len(name)} {name}\n"
    adapters = catalog.adapters
    for name in sorted(adapters):
        base = adapters[name] or ""
        yield f"{len(name)} {name} {len(base)} {base}\n"
