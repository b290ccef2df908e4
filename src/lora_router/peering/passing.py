"""What the hub needs of those that tell peers more than reports have."""

from collections.abc import Collection
from typing import Protocol, TypeVar

from lora_router.peering.pb.peering_pb2 import Answer, MadeIds, Question, SentPrompts
from lora_router.peering.pb.readings_pb2 import Readings

_Told_contra = TypeVar("_Told_contra", contravariant=True)


class Part(Protocol[_Told_contra]):
    """Tells peers one thing, and takes in what they tell of it."""

    def received(self, name: str, message: _Told_contra) -> None:
        """Take in what a peer tells.

        Raises:
            ReportError: The message is malformed, or exceeds a bound.
        """

    def gone(self, name: str) -> None:
        """Forget a peer that stopped, or is not heard any more."""


class PassesReadings(Part[Readings], Protocol):
    """Tells peers what is read from pods, and takes in what they tell."""

    def take(self) -> list[bytes]:
        """Return the messages with the readings that wait. The caller must send them at once."""


class PassesIds(Part[Collection[MadeIds]], Protocol):
    """Tells peers which pods made which IDs, and takes in what they tell."""

    def joined(self) -> None:
        """Note that there is a new peer, which knows no IDs."""


class PassesPrefixes(Part[Collection[SentPrompts]], Protocol):
    """Tells peers which prompts went to which pods, and takes in what they tell."""

    @property
    def told(self) -> int:
        """Prompts that were told to peers."""

    @property
    def untold(self) -> int:
        """Prompts that were not, because too many waited."""

    @property
    def heard(self) -> int:
        """Prompts that peers told."""

    def joined(self) -> None:
        """Note that there is a new peer, which knows no prompts."""


class PassesQuestions(Protocol):
    """Asks peers what people want to know, and answers what peers ask."""

    def asked(self, name: str, question: Question) -> None:
        """Answer what a peer asks."""

    def answered(self, name: str, answer: Answer) -> None:
        """Take in what a peer answers.

        Raises:
            ReportError: It exceeds a bound.
        """

    def gone(self, name: str) -> None:
        """Forget a peer that stopped, or is not heard any more."""
