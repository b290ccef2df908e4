"""The estimate of which adapters are in a pod's slots, if the server does not report it.

The slots are assumed to contain what is in flight and, in the remaining slots, what was used last.
The estimate is exact if only one router uses the pod and never exceeds the number of slots. It is a
mapping in order of last use, the most recently used adapter last.
"""

from collections.abc import Container, Mapping, Set


def estimate_resident(
    uses: dict[str, float],
    expected: Mapping[str, int],
    foreign: Set[str],
    seated: Container[str] | None,
    slots: int,
) -> dict[str, None]:
    """Return the adapters that are probably in slots.

    Args:
        uses: The last uses, in their order (``last_uses``).
        expected: The adapters that this router has in flight.
        foreign: Those that others have in flight.
        seated: Of those in flight, the ones in a slot. If more adapters are in flight than there
            are slots, some of them wait: only those that have had a first token are known to be in
            a slot. ``None``: all.
        slots: The number of slots.
    """
    busy = expected.keys() | foreign if foreign else expected.keys()
    if seated is None:
        seated = busy
    left, missing = slots - len(busy), len(busy)
    found = []
    for name in reversed(uses):
        if name in busy:
            missing -= 1
            if name in seated:
                found.append(name)
        elif left > 0:
            found.append(name)
            left -= 1
        if left <= 0 and missing <= 0:
            break
    return dict.fromkeys(reversed(found))


def seat(
    adapter: str,
    resident: dict[str, None],
    slots: int | None,
    expected: Mapping[str, int],
    foreign: Set[str],
) -> None:
    """Add an adapter to the estimate. If the slots are full, evict the one idle for longest."""
    if slots is not None and len(resident) >= slots:
        for name in resident:
            if name not in expected and name not in foreign:
                del resident[name]
                break
    resident[adapter] = None
