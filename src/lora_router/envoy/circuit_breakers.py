"""Circuit breakers that do not bound the requests in flight."""

from envoy_data_plane.envoy.config.cluster import v3 as cluster_v3

UNBOUNDED = 2**31 - 1


def no_circuit_breakers() -> cluster_v3.CircuitBreakers:
    """Return thresholds that are never reached. Envoy's defaults are 1,024, and 3 retries."""
    return cluster_v3.CircuitBreakers(
        thresholds=[
            cluster_v3.CircuitBreakersThresholds(
                max_connections=UNBOUNDED,
                max_pending_requests=UNBOUNDED,
                max_requests=UNBOUNDED,
                max_retries=UNBOUNDED,
            )
        ]
    )
