"""What the hub needs of those that tell peers more than reports have."""

from collections.abc import Collection
from typing import Protocol

from lora_router.peering.pb.peering_pb2 import (
    Answer,
    EarlyRefusal,
    FailedLoad,
    LoadTimes,
    MadeIds,
    Question,
    SentPrompts,
    Withdrawal,
)
from lora_router.peering.pb.readings_pb2 import Readings


class PassesReadings(Protocol):
    """Tells peers what is read from pods, and takes in what they tell."""

    def take(self) -> list[bytes]:
        """Return the messages with the readings that wait. The caller must send them at once."""

    def received(self, name: str, message: Readings) -> None:
        """Take in what a peer tells.

        Raises:
            ReportError: The message is malformed, or exceeds a bound.
        """

    def gone(self, name: str) -> None:
        """Forget a peer that stopped, or is not heard any more."""


class PassesIds(Protocol):
    """Tells peers which pods made which IDs, and takes in what they tell."""

    def joined(self) -> None:
        """Note that there is a new peer, which knows no IDs."""

    def received(self, name: str, message: Collection[MadeIds]) -> None:
        """Take in what a peer tells.

        Raises:
            ReportError: The message exceeds a bound.
        """

    def gone(self, name: str) -> None:
        """Forget a peer that stopped, or is not heard any more."""


class PassesPrefixes(Protocol):
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

    def received(self, name: str, message: Collection[SentPrompts]) -> None:
        """Take in what a peer tells.

        Raises:
            ReportError: The message is malformed, or exceeds a bound.
        """

    def gone(self, name: str) -> None:
        """Forget a peer that stopped, or is not heard any more."""


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


class PassesFailedLoads(Protocol):
    """Tells peers which adapters cannot be loaded, and takes in what they tell."""

    def received(self, name: str, message: Collection[FailedLoad]) -> None:
        """Take in what a peer tells.

        Raises:
            ReportError: The message exceeds a bound.
        """

    def gone(self, name: str) -> None:
        """Forget a peer that stopped, or is not heard any more."""


class PassesWithdrawals(Protocol):
    """Tells peers which adapters are about to be unloaded, and takes in what they tell."""

    def received(self, name: str, message: Collection[Withdrawal]) -> None:
        """Take in what a peer tells.

        Raises:
            ReportError: The message exceeds a bound.
        """

    def gone(self, name: str) -> None:
        """Forget a peer that stopped, or is not heard any more."""


class PassesEarlyRefusals(Protocol):
    """Tells peers which adapters were refused slots early, and takes in what they tell."""

    def received(self, name: str, message: Collection[EarlyRefusal]) -> None:
        """Take in what a peer tells.

        Raises:
            ReportError: The message exceeds a bound.
        """

    def gone(self, name: str) -> None:
        """Forget a peer that stopped, or is not heard any more."""


class PassesLoadTimes(Protocol):
    """Tells peers how long loads of adapters took, and takes in what they tell."""

    def received(self, name: str, message: Collection[LoadTimes]) -> None:
        """Take in what a peer tells.

        Raises:
            ReportError: The message exceeds a bound.
        """

    def gone(self, name: str) -> None:
        """Forget a peer that stopped, or is not heard any more."""
