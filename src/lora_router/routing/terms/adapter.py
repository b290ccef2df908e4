"""*Adapter*: the time of bringing an adapter into a slot of a pod.

It costs nothing if the adapter is in a slot. Otherwise it takes what is believed of loads from host
memory and from disk (``fleet/load_times.py``), or what the settings say. The load is paid once and
serves all requests of the adapter, so its price is shared by those in flight.

A pod loads one adapter after the other, and its batch waits. So the time that is left of loads from
disk under way there (``fleet/pod_work.py``) counts too, also for an adapter that is in a slot. It
counts only for requests that take a slot: if it drove requests from pods that they can join, hot
adapters would take slots that others need, most of all in a fleet that loads everything from disk.
"""

from lora_router.fleet.adapter_beliefs import IN_SLOT
from lora_router.fleet.load_seconds import ASSUMED, DISK_SECONDS, HOST_SECONDS, LoadSeconds
from lora_router.fleet.pod_state import PodView
from lora_router.routing.terms.weights import REQUESTS_A_SECOND, Weights

SHARED_BY = 4.0
"""With this many of an adapter's requests in flight, the price of loading it on another pod is
halved. A lower value makes hot adapters spread sooner, with more loads. A higher value makes their
pods busier."""


class AdapterLoad:
    """The price of loading adapters."""

    __slots__ = ("_price", "_usual")

    def __init__(self, weights: Weights) -> None:
        self._price = weights.adapter_weight * REQUESTS_A_SECOND
        host = weights.adapter_load_seconds
        self._usual: LoadSeconds = (0.0, host, host * DISK_SECONDS / HOST_SECONDS)

    def of(self, pod: PodView, adapter: str, now: float) -> float:
        """Return the price of bringing an adapter into a slot of a pod, with the loads before it.

        Args:
            pod: The pod.
            adapter: The adapter.
            now: Seconds, monotonic.
        """
        where = pod.beliefs.where(adapter)
        price = 0.0 if where == IN_SLOT else self.at(where, pod)
        work = pod.work
        if work.loads_end > now >= work.loads_known_at:
            price += self._price * (work.loads_end - now)  # As ``before``, without two calls.
        return price

    def before(self, pod: PodView, now: float) -> float:
        """Return the price of the loads that are under way on a pod."""
        return self._price * pod.work.loading_seconds(now)

    def at(self, where: int, pod: PodView | None) -> float:
        """Return the price of a load from where the adapter is, on a pod if it is known."""
        times = self._usual
        if pod is not None and pod.beliefs.load_seconds is not ASSUMED:
            times = pod.beliefs.load_seconds
        return self._price * times[where]


def shared(price: float, in_flight: int) -> float:
    """Return the price of loading an adapter on a further pod, by its requests in flight."""
    return price / (1.0 + in_flight / SHARED_BY)
