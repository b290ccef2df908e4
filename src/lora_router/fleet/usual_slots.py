"""How many adapter slots pods usually have. New ones are assumed to have as many at first."""

from lora_router.fleet.by_bases import ByBases
from lora_router.fleet.pod_state import PodState


class _Usual:
    """What is usual on the pods that serve the same base models."""

    __slots__ = ("slots",)

    def __init__(self) -> None:
        self.slots: int | None = None
        """The adapter slots of the last pod that said it."""


class UsualSlots:
    """What is usual in one fleet."""

    __slots__ = ("_usual",)

    def __init__(self) -> None:
        self._usual = ByBases(_Usual)

    def assume(self, state: PodState) -> None:
        """Let a pod have as many slots as usual, unless their number is known."""
        state.beliefs.assume_slots(self._usual.of(state.base_models).slots)

    def learn(self, state: PodState) -> None:
        """Learn from a pod, if it has said how many slots it has."""
        beliefs = state.beliefs
        if beliefs.slots and not beliefs.are_slots_assumed:
            self._usual.of(state.base_models).slots = beliefs.slots
