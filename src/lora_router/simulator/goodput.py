"""Which requests are good: those that a user does not have to wait for.

Goodput is the share of the requests that meet a limit for the time to first token (TTFT) and one
for the time per output token (TPOT). See DistServe (OSDI '24), section 2. A refused request is not
good.
"""

from dataclasses import dataclass

from lora_router.simulator.simulated_request import SimulatedRequest


@dataclass(frozen=True, slots=True)
class Goodput:
    """The limits, in seconds."""

    ttft_seconds: float = 2.0
    """Longest time from the arrival of a request to its first token."""
    tpot_seconds: float = 0.050
    """Longest time for each further token, on average over the request."""

    def is_good(self, request: SimulatedRequest) -> bool:
        """Return whether a request that ended is within both limits."""
        return (
            request.first_token - request.arrived <= self.ttft_seconds
            and seconds_per_token(request) <= self.tpot_seconds
        )


def seconds_per_token(request: SimulatedRequest) -> float:
    """Return the time per output token after the first one. 0 for an answer of one token."""
    further = request.output_tokens - 1
    return (request.ended - request.first_token) / further if further > 0 else 0.0
