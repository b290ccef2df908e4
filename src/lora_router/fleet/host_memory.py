"""An estimate of which adapters are in the host memory of a pod.

vLLM has two LRU caches of adapters: one with ``max_loras`` entries for the slots, and one with
``max_cpu_loras`` entries for host memory. An adapter in a slot is in host memory too. A running
request keeps its adapter at the recent end of both caches, so an adapter in use is never evicted.
An adapter that is evicted from host memory has to be read from disk or from a remote store before
its next request (``vllm/lora/worker_manager.py``, ``LRUCacheWorkerLoRAManager.add_adapter``).

Rules:

- The size is what discovery says (``lora_spec``). Without that it is assumed to be the number of
  slots, because ``--max-cpu-loras`` equals ``--max-loras`` unless it is set
  (``vllm/config/lora.py``), until loads show that more fit (``learned_size``). Engines that are
  known to be others than vLLM have no assumed limit.
- Adapters that were used are in the cache in order of last use.
- Adapters that the server loaded when it started, or has loaded since it listed them, are in the
  cache too, as if they had been used before all others and in the order of the list. If all of them
  fit, none of them was ever evicted.
- The estimate never has more adapters than fit. It is exact if this router knows of every use.
"""

from collections.abc import Container, Iterable, Mapping, Sequence, Set
from itertools import islice
from typing import TypeAlias

from lora_router.fleet.lora_spec import LEARNED, NO_SPEC, UNLIMITED, LoraSpec

MOST = 1024
"""How many adapters the order of last use may contain. It bounds the memory of a pod's record."""
Names: TypeAlias = tuple[str, ...] | Mapping[str, str | None]
"""Names of adapters in order. A catalog has them as keys."""
_NOTHING: dict[str, float] = {}
_ENGINES_AS_VLLM = frozenset({None, "vllm"})


class HostMemory:
    """The host memory of one pod. ``AdapterBeliefs`` writes to it."""

    __slots__ = (
        "_engine",
        "_has_list",
        "_listed",
        "assumed",
        "evictions",
        "fits",
        "follows",
        "held",
        "learned",
        "size",
        "spec",
    )

    def __init__(self) -> None:
        self.spec: LoraSpec = NO_SPEC
        """What discovery says."""
        self.size = UNLIMITED
        """How many adapters fit. ``UNLIMITED``: any number."""
        self.follows = True
        """Whether the estimate is the order of last use itself, because that is not longer."""
        self.evictions = 0
        """Adapters that were evicted, by this estimate, since the server started."""
        self.assumed: int | None = None
        """How many are assumed to fit. ``None``: the size is known, or no limit is."""
        self.learned = 0
        """How many fit as loads showed, if the size is assumed."""
        self._engine: str | None = None
        self.held: dict[str, float] | dict[str, None] = _NOTHING
        """The adapters in memory, or in slots, in order of last use, as far as is known."""
        self._has_list = False
        """Whether the server's own list is known."""
        self._listed: Names = ()
        """The adapters that were loaded at some time, in order."""
        self.fits: Names = ()
        """These, if all of them fit. They are in memory too."""

    @property
    def source(self) -> str:
        """Where the size is known from, a word of ``lora_spec``."""
        is_learned = self.assumed is not None and self.learned > self.assumed
        return LEARNED if is_learned else self.spec.source

    @property
    def limit(self) -> int | None:
        """How many adapters fit; ``None``: any number, or no limit is known."""
        return self.size if self.size < UNLIMITED else None

    def use(self, adapter: str, running: Container[str], foreign: Container[str]) -> None:
        """Mark an adapter as the one that was used last, and evict another if memory is full.

        Call it only if ``follows`` is false.

        Args:
            adapter: The adapter.
            running: Adapters with requests of this router, which are not evicted.
            foreign: Adapters with requests of others, which are not evicted either.
        """
        held: dict[str, None] = self.held  # type: ignore[assignment]
        if adapter in held:
            del held[adapter]
            held[adapter] = None
            return
        held[adapter] = None
        if self.fits:
            if adapter in self.fits:
                return
            # The server loads more than is known to have been loaded, so that not all may fit.
            older = dict.fromkeys(name for name in self.fits if name not in held)
            self.held = held = {**older, **held}
            self.fits = ()
        if len(held) > self.size:
            oldest = adapter
            for oldest in held:
                if oldest not in running and oldest not in foreign:
                    break
            del held[oldest]
            self.evictions += 1

    def tell(self, spec: LoraSpec, engine: str | None) -> None:
        """Apply what discovery says. Call ``resize`` afterwards."""
        self.spec, self._engine = spec, engine
        if not self._has_list:
            self._listed = spec.preloaded

    def lists(self, adapters: Names) -> Sequence[str]:
        """Apply what the server lists, in order of loading. Call ``resize`` afterwards.

        Return the adapters that it has loaded since the last list, the ``MOST`` last ones at most.
        """
        if not self.spec.loads_when_listed:
            return ()
        before, self._listed = self._listed, adapters
        if not self._has_list:
            self._has_list = True
            return ()
        known = frozenset(before) if isinstance(before, tuple) else before
        return [name for name in adapters if name not in known][-MOST:]

    def forget(self, adapter: str) -> None:
        """Forget an adapter that the server does not have."""
        if not self.follows:
            self.held.pop(adapter, None)

    def resize(
        self, slots: int | None, uses: dict[str, float], running: Set[str], foreign: Set[str]
    ) -> None:
        """Derive the size again, and the estimate from the order of last use.

        Args:
            slots: The number of slots. ``None``: unknown.
            uses: The adapters in order of last use. The estimate follows it if that is enough.
            running: Adapters with requests of this router.
            foreign: Adapters with requests of others.
        """
        size = self.spec.host_memory
        if size is None:
            is_assumed = slots is not None and self._engine in _ENGINES_AS_VLLM
            self.assumed = slots if is_assumed else None
            size = UNLIMITED if self.assumed is None else max(self.assumed, self.learned)
        else:
            self.assumed = None
        self.size = size = max(size, slots or 0)
        listed = self._listed
        self.follows = size >= MOST
        if self.follows:
            self.held, self.fits = uses, listed if len(listed) <= size else ()
            return
        names = _last_used(uses, running | foreign, size)
        known = frozenset(names)
        strays = sum(name not in listed for name in names) if listed else 0
        self.fits = listed if len(listed) + strays <= size else ()
        if listed and not self.fits:
            older = (name for name in _reversed(listed) if name not in known)
            names += islice(older, max(0, size - len(names)))
        names.reverse()
        self.held = dict.fromkeys(names)


def _last_used(uses: dict[str, float], busy: Set[str], most: int) -> list[str]:
    """Return the adapters that are kept, the most recently used one first.

    Args:
        uses: The adapters in order of last use.
        busy: Those with requests. They are in use now, and are kept.
        most: How many are kept at most.
    """
    left, missing = most - len(busy), len(busy)
    kept: list[str] = []
    idle: list[str] = []
    for name in reversed(uses):
        if name in busy:
            missing -= 1
            kept.append(name)
        elif len(idle) < left:
            idle.append(name)
        elif missing <= 0:
            break
    return (kept + idle)[:most]


def _reversed(names: Names) -> Iterable[str]:
    # A catalog has a dict, which can be reversed although not every mapping can.
    return reversed(names)  # type: ignore[arg-type]
