"""Reads what algorithms noted of the candidates of past decisions (``Pick.notes``)."""

from collections.abc import Iterable, Mapping

from lora_router.routing.algorithm import Algorithm, Noted
from lora_router.routing.interrupt import let_interrupt_pass
from lora_router.routing.looks import MAX_SEEN, Seen

_MAX_TEXT = 256
"""Characters that are kept of an algorithm's texts."""
_MAX_TERMS = 16
_INFINITY = float("inf")


class Recollection:
    """Reads the notes of all algorithms of a director."""

    __slots__ = ("_algorithms",)

    def __init__(self, algorithms: Mapping[str, Algorithm]) -> None:
        """Create it for algorithms by name."""
        self._algorithms = algorithms

    def recall(self, algorithm: str, notes: object, pod: str, place: str) -> tuple[Seen, ...]:
        """Return what a decision noted of its candidates, the cheapest first.

        Of many candidates these are the pod that was picked, and the cheapest others.

        Args:
            algorithm: The name of the algorithm that picked.
            notes: Its notes.
            pod: The name of the pod that was picked.
            place: Where the adapter was on that pod: one of ``looks.PLACES``.
        """
        read = getattr(self._algorithms.get(algorithm), "recall", None)
        if notes is None or read is None:
            return ()
        try:
            found = sorted(_checked(read(notes)), key=_sum)
            others = [each for each in found if each.pod.pod.name != pod][: MAX_SEEN - 1]
            kept = [each for each in found if each.pod.pod.name == pod or each in others]
            return tuple(_seen(each, pod, place) for each in kept)
        except BaseException as error:  # A plug-in may do anything.
            let_interrupt_pass(error)
            return ()


def _checked(noted: Iterable[Noted]) -> list[Noted]:
    return [each for each in noted if type(each) is Noted]


def _sum(noted: Noted) -> float:
    cost = noted.cost
    return _INFINITY if cost.excluded else sum(cost.terms.values())


def _seen(noted: Noted, picked: str, place: str) -> Seen:
    name, cost = noted.pod.pod.name, noted.cost
    terms = tuple((_text(term), float(value)) for term, value in cost.terms.items())
    where = place if name == picked else noted.place
    requests = None if noted.requests is None else int(noted.requests)
    return Seen(_text(name), requests, _text(where), terms[:_MAX_TERMS], _text(cost.excluded))


def _text(text: str) -> str:
    """Return a text that can be encoded, and is not long."""
    return text[:_MAX_TEXT].encode(errors="replace").decode()
