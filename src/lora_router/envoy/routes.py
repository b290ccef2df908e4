"""The routes of requests, and which of them are sent to a pod again."""

import re
from collections.abc import Iterator
from datetime import timedelta

from envoy_data_plane.envoy.config.route import v3 as route_v3
from envoy_data_plane.envoy.extensions.filters.http.ext_proc import v3 as ext_proc
from envoy_data_plane.envoy.type.matcher import v3 as matcher
from envoy_data_plane.google.protobuf import Any

from lora_router.config.settings import Settings
from lora_router.envoy.ext_proc_filter import processing_mode
from lora_router.envoy.pods_cluster import PODS_CLUSTER, retries
from lora_router.extproc.path_rules import UsageIn
from lora_router.extproc.path_table import RULES, rules_of_settings

RETRY_ON = "connect-failure,refused-stream,reset-before-request"
"""Only failures after which no pod has seen the request, so that nothing is generated twice."""

_NEVER = timedelta(0)


def route_config(settings: Settings) -> route_v3.RouteConfiguration:
    """Return the routes: everything goes to the pods, without the prefixes of the settings."""
    everything = route_v3.Route(match=route_v3.RouteMatch(prefix="/"), route=_to_pods(settings))
    return route_v3.RouteConfiguration(
        name="all",
        virtual_hosts=[
            route_v3.VirtualHost(
                name="all",
                domains=["*"],
                routes=[*_with_read_answers(settings), *_below_prefixes(settings), everything],
            )
        ],
    )


def _prefixes(settings: Settings) -> list[str]:
    """Return the prefixes of paths in the order in which the router looks for them."""
    found = {prefix.rstrip("/") for prefix in settings.path_prefixes}
    return sorted(found - {""}, key=len, reverse=True)


def _below_prefixes(settings: Settings) -> Iterator[route_v3.Route]:
    for prefix in _prefixes(settings):
        yield route_v3.Route(
            match=route_v3.RouteMatch(path_separated_prefix=prefix),
            route=_to_pods(settings, prefix),
        )


def _to_pods(settings: Settings, prefix: str = "") -> route_v3.RouteAction:
    """Return the action that sends a request to its pod, without a prefix of its path."""
    removed = matcher.RegexMatchAndSubstitute(
        pattern=matcher.RegexMatcher(regex=f"^{re.escape(prefix)}/*"), substitution="/"
    )
    return route_v3.RouteAction(
        cluster=PODS_CLUSTER,
        regex_rewrite=removed if prefix else None,
        # A generation may take long, also until its first byte.
        timeout=_NEVER,
        retry_policy=route_v3.RetryPolicy(retry_on=RETRY_ON, num_retries=retries(settings)),
    )


def _with_read_answers(settings: Settings) -> Iterator[route_v3.Route]:
    """Yield routes for paths of which the router reads answers, in modes in which it cannot ask.

    They contain IDs or, with the setting ``tokens``, numbers of tokens. Envoy ignores mode
    overrides if it sends the body without waiting for the answer to the headers, and in full
    duplex mode.
    """
    if settings.envoy_body_mode == "buffered":
        return
    mode = processing_mode(settings)
    mode.response_body_mode = ext_proc.ProcessingModeBodySendMode.STREAMED
    per_route = Any.pack(
        ext_proc.ExtProcPerRoute(overrides=ext_proc.ExtProcOverrides(processing_mode=mode))
    )
    reads_usage = settings.tokens != "off"
    rules = [
        rule
        for rule in (*RULES, *rules_of_settings(settings.paths.items()))
        if rule.makes_ids or (reads_usage and rule.usage is not UsageIn.NONE)
    ]
    seen = set()
    for prefix in (*_prefixes(settings), ""):
        for rule in rules:
            path = prefix + rule.path.partition("/{")[0]
            if path in seen:
                continue
            seen.add(path)
            methods = "|".join(sorted(rule.methods)) or "GET|POST"
            yield route_v3.Route(
                match=route_v3.RouteMatch(
                    path_separated_prefix=path,
                    headers=[
                        route_v3.HeaderMatcher(
                            name=":method",
                            string_match=matcher.StringMatcher(
                                safe_regex=matcher.RegexMatcher(regex=methods)
                            ),
                        )
                    ],
                ),
                route=_to_pods(settings, prefix),
                typed_per_filter_config={"envoy.filters.http.ext_proc": per_route},
            )
