"""Which pods of a group a label selector selects, without a look at each pod.

A set of pods is a number, a *mask*, of which each bit stands for a pod of the group. A requirement
names few values of one label, so its pods are found by the values. Clients write selectors, and
each may write others: a new selector costs as much as it has requirements. Only the first one that
names a label looks at each pod.
"""

from collections.abc import Iterable, Sequence

from lora_router.fleet.pod_state import PodState
from lora_router.routing.selector import Operator, Requirement, Selector


class LabelIndex:
    """The labels of the pods of one group. They stay the same as long as the group lives."""

    __slots__ = ("_by_key", "_keys", "_pods", "everyone")

    def __init__(self, pods: Sequence[PodState]) -> None:
        """Create it.

        Args:
            pods: The pods, each at its bit.
        """
        self._pods = pods
        self._keys: set[str] = set().union(*(pod.pod.labels for pod in pods))
        self._by_key: dict[str, dict[str, int]] = {}
        """By key and value of a label, the pods that have it. Only keys that some pod has."""
        self.everyone = (1 << len(pods)) - 1
        """All pods."""

    def selected(self, selector: Selector) -> int:
        """Return the pods that a selector selects."""
        mask = self.everyone
        for requirement in selector.requirements:
            mask &= self._meeting(requirement)
            if not mask:
                break
        return mask

    def pods(self, mask: int) -> list[PodState]:
        """Return the pods of a mask, in the order of the group."""
        bits = f"{mask:b}"[::-1]
        return [pod for pod, bit in zip(self._pods, bits, strict=False) if bit == "1"]

    def _meeting(self, requirement: Requirement) -> int:
        values = self._values_of(requirement.key)
        match requirement.operator:
            case Operator.EXISTS:
                return _union(values.values())
            case Operator.ABSENT:
                return self.everyone & ~_union(values.values())
            case Operator.IN:
                return _union(values.get(value, 0) for value in requirement.values)
            case Operator.NOT_IN:
                some = _union(values.get(value, 0) for value in requirement.values)
                return self.everyone & ~some
            case Operator.GREATER | Operator.LESS:
                key = requirement.key
                return _union(
                    mask for value, mask in values.items() if requirement.matches({key: value})
                )

    def _values_of(self, key: str) -> dict[str, int]:
        """Return the pods by their value of a label. Those without the label are not among them."""
        if key not in self._keys:
            return {}
        found = self._by_key.get(key)
        if found is None:
            numbers: dict[str, list[int]] = {}
            for number, pod in enumerate(self._pods):
                value = pod.pod.labels.get(key)
                if value is not None:
                    numbers.setdefault(value, []).append(number)
            found = {value: mask_of(each) for value, each in numbers.items()}
            self._by_key[key] = found
        return found


def mask_of(numbers: Sequence[int]) -> int:
    """Return the mask of the pods at some bits, which ascend."""
    bits = bytearray(numbers[-1] // 8 + 1 if numbers else 0)
    for number in numbers:
        bits[number // 8] |= 1 << number % 8
    return int.from_bytes(bits, "little")


def _union(masks: Iterable[int]) -> int:
    union = 0
    for mask in masks:
        union |= mask
    return union
