"""How the answer to a request began, as Envoy reports it with the response headers."""

from msgspec import Struct

FROM_THE_POD = "via_upstream"
"""Envoy's response code details of an answer that the pod gave."""


class Answer(Struct, frozen=True, gc=False):
    """The beginning of an answer."""

    status: int
    """The HTTP status; 0: unknown."""
    served_by: str = ""
    """The endpoint that Envoy sent the request to last. Empty: unknown, or it reached none."""
    details: str = ""
    """Envoy's response code details; ``FROM_THE_POD``, or why Envoy itself answered. Empty:
    unknown."""

    @property
    def from_the_pod(self) -> bool:
        """Whether the pod gave the answer, as far as is known."""
        return not self.details or self.details == FROM_THE_POD
