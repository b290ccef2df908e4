"""What the routers of one fleet know of each other's requests."""

from enum import StrEnum


class KnowledgeError(ValueError):
    """The simulator does not have this kind of knowledge. The message lists those that it has."""


class Knowledge(StrEnum):
    """How a router learns of the requests of other routers."""

    NOTHING = "nothing"
    """It does not: the pods' metrics report only how many slots a pod has."""
    SCRAPES = "scrapes"
    """From the pods' metrics."""
    PEERING = "peering"
    """From the pods' metrics, and from the reports of the other routers."""


NOTHING, SCRAPES, PEERING = Knowledge


def read_knowledge(text: str) -> Knowledge:
    """Read the name of a kind of knowledge.

    Raises:
        KnowledgeError: There is no such kind.
    """
    try:
        return Knowledge(text)
    except ValueError:
        raise KnowledgeError(
            "--peers: must be nothing, scrapes (of pods), or peering (reports of the other routers "
            f"too), not {text!r}"
        ) from None
