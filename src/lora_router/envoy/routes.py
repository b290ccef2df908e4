"""The route of all requests, and which of them are sent to a pod again."""

from datetime import timedelta

from envoy_data_plane.envoy.config.route import v3 as route_v3

from lora_router.config.settings import Settings
from lora_router.envoy.pods_cluster import PODS_CLUSTER, retries

RETRY_ON = "connect-failure,refused-stream,reset-before-request"
"""Only failures after which no pod has seen the request, so that nothing is generated twice."""

_NEVER = timedelta(0)


def route_config(settings: Settings) -> route_v3.RouteConfiguration:
    """Return the one route: everything goes to the pods."""
    return route_v3.RouteConfiguration(
        name="all",
        virtual_hosts=[
            route_v3.VirtualHost(
                name="all",
                domains=["*"],
                routes=[
                    route_v3.Route(
                        match=route_v3.RouteMatch(prefix="/"),
                        route=route_v3.RouteAction(
                            cluster=PODS_CLUSTER,
                            # A generation may take long, also until its first byte.
                            timeout=_NEVER,
                            retry_policy=route_v3.RetryPolicy(
                                retry_on=RETRY_ON, num_retries=retries(settings)
                            ),
                        ),
                    )
                ],
            )
        ],
    )
