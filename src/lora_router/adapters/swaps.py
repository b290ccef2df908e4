"""When a copy of an adapter takes the place of another one.

- It must be worth much more: ``SWAP`` times as much. And it must save more seconds of waiting than
  its load costs the requests on the pod.
- A copy that the operator wants beyond the first one takes the place of one that only demand asks
  for, and makes way for the first copy of another adapter, whatever they are worth. Otherwise
  popular adapters that are wanted on several pods would leave no place for others.
- The last copy of an adapter makes way for first copies only.
"""

from lora_router.adapters.copies import FILL_SECONDS, SWAP_SECONDS
from lora_router.fleet.adapter_beliefs import AWAY
from lora_router.fleet.pod_state import PodState

SWAP = 12.0
"""How many times as much as the evicted copy another one must be worth. A lower value makes the
loader follow chance."""
SPARE, NEEDED, FIRST = range(3)
"""The ranks of copies: those that only demand asks for, those that the operator wants beyond the
first one, and first ones."""


def rank_of(number: int, needed: int) -> int:
    """Return the rank of a copy.

    Args:
        number: Which one of its adapter it is, from 1.
        needed: How many the operator wants at least.
    """
    if number <= 1:
        return FIRST
    return NEEDED if number <= needed else SPARE


def lower_rank(rank: int) -> int | None:
    """Return the rank of the copies that make way for one whatever they are worth."""
    return None if rank == SPARE else rank - 1


def may_take(rank: int, other: int, state: PodState, worth: float, lost: float) -> bool:
    """Return whether a copy may take the place of another one on a pod.

    Args:
        rank: Its rank.
        other: The rank of the other one.
        state: The pod.
        worth: What it saves in each second, in seconds of waiting.
        lost: What is lost with the other one.
    """
    if rank < other:
        return False
    if other == lower_rank(rank):
        return pays(state, worth)
    is_worth_it = worth > SWAP * lost
    return is_worth_it and (worth - lost) * SWAP_SECONDS > _stall(state)


def pays(state: PodState, worth: float) -> bool:
    """Return whether a copy that takes nobody's place is worth its load."""
    return worth * FILL_SECONDS > _stall(state)


def _stall(state: PodState) -> float:
    """Return what a load costs the requests on a pod, in seconds."""
    return state.beliefs.load_seconds[AWAY] * state.in_flight
