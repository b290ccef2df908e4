"""The names of the headers that are read and set."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class HeaderNames:
    """All lower case, all different. One for a server's life: answers are remembered by it."""

    target_pod: str = "target-pod"
    destination: str = "x-gateway-destination-endpoint"
    strategy: str = "routing-strategy"
    pod_filter: str = "external-filter"
    model: str = "model"
    request_id: str = "x-request-id"

    @property
    def ours(self) -> tuple[str, ...]:
        """What only this service may set: a client's own values never pass."""
        return (self.target_pod, self.destination, self.strategy, self.model)

    @property
    def wanted(self) -> tuple[str, ...]:
        """What is read of a request's headers, in the order of ``events.make_request_headers``."""
        return (
            ":path",
            "content-type",
            "content-length",
            self.request_id,
            self.strategy,
            self.pod_filter,
        )
