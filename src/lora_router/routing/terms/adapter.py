"""*Adapter*: the time of bringing an adapter into a slot of a pod.

It costs nothing if the adapter is in a slot. From host memory it takes what the pod reports, or
what the settings say. From anywhere else it takes several times longer. The load is paid once and
serves all requests of the adapter, so its price is shared by those in flight.
"""

from lora_router.fleet.adapter_beliefs import AWAY, IN_SLOT
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodView
from lora_router.routing.terms.weights import REQUESTS_A_SECOND, Weights

COLD_FACTOR = 4.0
"""How many times longer a load takes if the pod never had the adapter. The adapter may have to be
fetched from disk or from a remote store first."""
HIGHEST_PRICE = 128.0
"""Upper bound of the price of a load, however long the load takes. Without a bound, an expensive
load would be avoided no matter how busy the pods are that have the adapter."""
SHARED_BY = 8.0
"""With this many of an adapter's requests in flight, the price of loading it on another pod is
halved. A lower value makes hot adapters spread sooner, with more loads. A higher value makes their
pods busier."""


class AdapterLoad:
    """The price of loading adapters."""

    __slots__ = ("_usual",)

    def __init__(self, weights: Weights) -> None:
        self._usual = _prices(weights.adapter_load_seconds)

    def of(self, pod: PodView, adapter: str) -> float:
        """Return the price of bringing an adapter into a slot of a pod."""
        where = pod.beliefs.where(adapter)
        return 0.0 if where == IN_SLOT else self.at(where, pod.metrics)

    def at(self, where: int, metrics: PodMetrics | None) -> float:
        """Return the price of a load from where the adapter is, on a pod with some metrics."""
        seconds = None if metrics is None else metrics.adapter_load_seconds
        prices = self._usual if seconds is None else _prices(seconds)
        return prices[min(where, AWAY)]


def shared(price: float, in_flight: int) -> float:
    """Return the price of loading an adapter on a further pod, by its requests in flight."""
    return price / (1.0 + in_flight / SHARED_BY)


def _prices(load_seconds: float) -> tuple[float, float, float]:
    """Return the prices of loading, indexed by where the adapter is."""
    price = REQUESTS_A_SECOND * load_seconds
    return 0.0, min(price, HIGHEST_PRICE), min(COLD_FACTOR * price, HIGHEST_PRICE)
