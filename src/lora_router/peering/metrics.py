"""Metrics of peering, read whenever the page is."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from lora_router.peering.hub import Hub
    from lora_router.peering.reading_exchange import ReadingExchange
    from lora_router.peering.redis_channel import RedisChannel


class PeerMetrics(Collector):
    """The collector. No label is a peer's name, because peers choose their names."""

    def __init__(
        self,
        hub: "Hub",
        redis: "RedisChannel | None" = None,
        is_worker: Callable[[str], bool] | None = None,
    ) -> None:
        """Create it.

        Args:
            hub: The peers.
            redis: A place where all routers listen, if there is one.
            is_worker: Returns whether a peer is a worker of the same router. ``None``: all are.
        """
        self._hub = hub
        self._redis = redis
        self._is_worker = is_worker

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as they are now."""
        hub = self._hub
        counts, now = hub.counts, hub.now()
        peers = hub.peers.values()
        reports = CounterMetricFamily(
            "lora_router_peer_reports",
            "Reports sent to and received from peers.",
            labels=["direction"],
        )
        reports.add_metric(["sent"], counts.reports_sent)
        reports.add_metric(["received"], counts.reports_received)
        size = CounterMetricFamily(
            "lora_router_peer_bytes", "Bytes of the messages of peering.", labels=["direction"]
        )
        size.add_metric(["sent"], counts.bytes_sent)
        size.add_metric(["received"], counts.bytes_received)
        rejected = CounterMetricFamily(
            "lora_router_peer_rejected",
            "Streams and messages of peers that were rejected, by cause.",
            labels=["cause"],
        )
        for cause, number in counts.rejected.items():
            rejected.add_metric([cause], number)
        forgotten = CounterMetricFamily(
            "lora_router_peer_forgotten",
            "Peers that were forgotten because they left or were silent.",
            labels=["cause"],
        )
        forgotten.add_metric(["left"], counts.left)
        forgotten.add_metric(["silent"], counts.silent)
        prompts = CounterMetricFamily(
            "lora_router_peer_prompts",
            "Prompts whose pods were told to peers (sent), or that peers told (received), and "
            "prompts that were not told because too many waited (dropped).",
            labels=["direction"],
        )
        if (prefixes := hub.prefixes) is not None:
            prompts.add_metric(["sent"], prefixes.told)
            prompts.add_metric(["received"], prefixes.heard)
            prompts.add_metric(["dropped"], prefixes.untold)
        connected = GaugeMetricFamily(
            "lora_router_redis_connected",
            "Whether this router is connected to the Valkey or Redis of peering.",
        )
        if self._redis is not None:
            connected.add_metric([], self._redis.broadcasts.is_connected)
        remote = GaugeMetricFamily(
            "lora_router_remote_peers",
            "Those of lora_router_peers that are no workers of the same router. Each worker of "
            "another router counts. Only where routers are told how to find each other.",
        )
        if (is_worker := self._is_worker) is not None:
            remote.add_metric([], sum(not is_worker(name) for name in hub.peers))
        load = hub.load()
        return (
            connected,
            GaugeMetricFamily(
                "lora_router_peer_in_flight_requests",
                "Requests that peers have in flight, according to their last reports.",
                value=load.requests,
            ),
            GaugeMetricFamily(
                "lora_router_peer_in_flight_adapters",
                "Adapters that peers have in flight, each counted on every pod.",
                value=load.adapters,
            ),
            GaugeMetricFamily(
                "lora_router_peer_held_adapters",
                "Adapters that peers hold requests for.",
                value=load.held,
            ),
            GaugeMetricFamily(
                "lora_router_peers",
                "Other routers that this router exchanges reports with.",
                value=len(peers),
            ),
            remote,
            GaugeMetricFamily(
                "lora_router_peer_report_age_seconds",
                "Age of the oldest of the last reports of all peers; 0 without peers.",
                value=max((now - peer.heard_at for peer in peers), default=0.0),
            ),
            reports,
            size,
            rejected,
            forgotten,
            prompts,
        )


class ReadingMetrics(Collector):
    """The collector of what concerns readings of pods."""

    def __init__(self, exchange: "ReadingExchange") -> None:
        self._exchange = exchange

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as they are now."""
        readings = CounterMetricFamily(
            "lora_router_peer_readings",
            "Readings of pods that were sent to peers, or received from peers and used.",
            labels=["direction"],
        )
        exchange = self._exchange
        readings.add_metric(["sent"], exchange.told)
        readings.add_metric(["received"], exchange.used)
        trust = None if exchange.receiver is None else exchange.receiver.counts
        return (
            readings,
            CounterMetricFamily(
                "lora_router_peer_contradictions",
                "Audits in which a pod's page differed from what a peer had reported.",
                value=0 if trust is None else trust.contradictions,
            ),
            CounterMetricFamily(
                "lora_router_peer_distrusted",
                "How often the router stopped trusting a peer, after repeated contradictions.",
                value=0 if trust is None else trust.distrusted,
            ),
        )
