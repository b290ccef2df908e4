"""What the routers of one fleet know of each other's requests."""

from dataclasses import dataclass

SHORTEST_SECONDS, LONGEST_SECONDS = 0.01, 60.0


class KnowledgeError(ValueError):
    """The simulator does not have this kind of knowledge. The message lists those that it has."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """How a router learns of the requests of other routers."""

    scrapes: bool = True
    """From the pods' metrics. If false, these report only how many slots a pod has."""
    exchange_seconds: float | None = None
    """From the other routers: the interval at which each of them sends its ledger. ``None``:
    never."""

    def __str__(self) -> str:
        if self.exchange_seconds is not None:
            return f"{self.exchange_seconds:g} s"
        return "scrapes" if self.scrapes else "nothing"


NOTHING = Knowledge(scrapes=False)
SCRAPES = Knowledge()


def read_knowledge(text: str) -> Knowledge:
    """Read ``nothing``, ``scrapes``, or the seconds between two exchanges of ledgers.

    Raises:
        KnowledgeError: The text is none of these.
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
