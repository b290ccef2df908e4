"""The names of the headers that the router reads and sets."""

from dataclasses import dataclass

RESPONSE_WANTED = (":status", "content-type")
"""Response headers that the router reads, in the order of ``make_response_headers``."""
READ_RESPONSE_WANTED = (*RESPONSE_WANTED, "content-encoding")
"""The same where the router reads the bodies of answers."""

_UNUSED = " "
"""Begins the names that stand for headers which are not read, where a further one follows. No name
of a header has a space, so no client can send one."""
CONFORMANCE_HEADER = "test-epp-endpoint-selection"
"""The header by which conformance tests of gateways choose endpoints."""


@dataclass(frozen=True, slots=True, eq=False)
class HeaderNames:
    """Header names in lower case, all different.

    A server uses one instance for its lifetime, because answers are cached by its identity.
    """

    target_pod: str = "target-pod"
    destination: str = "x-gateway-destination-endpoint"
    strategy: str = "routing-strategy"
    pod_filter: str = "external-filter"
    model: str = "model"
    request_id: str = "x-request-id"
    objective: str = "x-gateway-inference-objective"
    pool: str = ""
    """Empty: not set."""
    rewrite_key: str = ""
    """Names who asks. Requests of one are rewritten to the same model. Empty: not read."""
    selection: str = ""
    """Names endpoints, among which the router chooses. Empty: not read."""
    new_model: str = ""
    """Names the model that takes the place of the client's. Empty: not read."""

    tenant: str = ""
    """Says who asks. Empty: not read."""
    priority: str = ""
    """Has the priority of the request. Empty: not read."""

    gateway_max: int = 100
    """How many headers of a request the gateway allows, with those that the router adds."""
    passes_authorization: bool = False
    """Whether the router itself sends requests of clients to pods."""
    reads_answers: bool = False
    """Whether the router reads the bodies of answers."""
    reads_traceparent: bool = False
    """Whether requests are traced."""

    @property
    def ours(self) -> tuple[str, ...]:
        """Headers that only the router may set. A client's values are removed or overwritten."""
        pool = (self.pool,) if self.pool else ()
        return (self.target_pod, self.destination, self.strategy, self.model, *pool)

    def are_too_many(self, number: int) -> bool:
        """Whether the gateway has no room for the router's headers beside those of a request."""
        return number > self.gateway_max - len(self.ours)

    @property
    def wanted(self) -> tuple[str, ...]:
        """Request headers that the router reads, in the order of ``make_request_headers``."""
        authorization = "authorization" if self.passes_authorization else ""
        traceparent = "traceparent" if self.reads_traceparent else ""
        more = [
            *(self.rewrite_key, authorization, self.selection, self.new_model),
            *(traceparent, self.tenant, self.priority),
        ]
        while more and not more[-1]:
            more.pop()
        return (
            ":path",
            ":method",
            "content-type",
            "content-length",
            self.request_id,
            self.strategy,
            self.pod_filter,
            "content-encoding",
            "anthropic-version",
            self.objective,
            *(name or f"{_UNUSED}{place}" for place, name in enumerate(more)),
        )
