"""Requests that the router itself sends to several pods, as records."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from lora_router.fleet.pod_state import PodState


@dataclass(frozen=True, slots=True)
class PodRequest:
    """What every pod gets."""

    method: str
    path: str
    """With the query."""
    body: bytes
    content_type: str
    authorization: str
    """As the client sent it; empty: it sent none."""


@dataclass(frozen=True, slots=True)
class PodResult:
    """What one pod answered."""

    state: PodState
    status: int
    """502: the pod could not be reached; 504: it did not answer in time."""
    text: str
    """The beginning of its answer, or why there is none."""


class CallsPods(Protocol):
    """Sends requests to pods."""

    def call(
        self,
        states: Sequence[PodState],
        request: PodRequest,
        seconds: float,
        on_done: Callable[[Sequence[PodResult]], None],
    ) -> None:
        """Send a request to each pod, in the background.

        Args:
            states: The pods.
            request: What each gets.
            seconds: How long it may take in total.
            on_done: Called once with a result for each pod, in the order of the pods.
        """
