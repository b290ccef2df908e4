"""What the routers of one fleet know of each other."""

from dataclasses import dataclass

SHORTEST_SECONDS, LONGEST_SECONDS = 0.01, 60.0


class KnowledgeError(ValueError):
    """It is none that the simulator has; the message says which there are."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Where a router hears of requests that are not its own."""

    scrapes: bool = True
    """From pods. Without, it learns from them only how many slots they have."""
    exchange_seconds: float | None = None
    """From the other routers, each of which tells of its ledger so often. ``None``: never."""

    def __str__(self) -> str:
        if self.exchange_seconds is not None:
            return f"{self.exchange_seconds:g} s"
        return "scrapes" if self.scrapes else "nothing"


NOTHING = Knowledge(scrapes=False)
SCRAPES = Knowledge()


def read_knowledge(text: str) -> Knowledge:
    """Read ``nothing``, ``scrapes``, or the seconds between two tellings.

    Raises:
        KnowledgeError: It is none of them.
    """
    if text in {"nothing", "scrapes"}:
        return NOTHING if text == "nothing" else SCRAPES
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        raise KnowledgeError(
            f"peers={text}: must be nothing, scrapes, or the seconds between two exchanges of "
            f"ledgers, from {SHORTEST_SECONDS:g} to {LONGEST_SECONDS:g}"
        )
    return Knowledge(exchange_seconds=seconds)
