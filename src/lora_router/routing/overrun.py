"""Whether a request is refused early, because it would probably wait for too long.

A burst makes the expected wait too long for a while, and then everybody is served. Overload makes
it too long for good, and then each request that waits delays all later ones. What tells them apart
is the *pressure*: how long requests would wait, on average of the last ``Overload.burst_seconds``,
if none had been refused. Those that were refused count for as long as they would have waited. So
refusals do not hide an overload, and a fleet that was only slow for a while is found not to be
overloaded any more. While a fleet stalls, expected waits grow beyond all measure, and say nothing
of the time after it. So what is averaged is bounded here, and for how long a refused request counts
in ``refused_early``.

A request does not wait for those of lower priorities. So these count neither in its expected wait
nor in its pressure, whether they wait or were refused: the lowest priority is refused first. Each
tenant is served once in a round. So requests of a tenant with many of them wait for longer than
those of others, and the pressure of each tenant counts: that of its own requests, or if that is
more, that of a request which is the only one of its tenant.

- While the pressure is low, a request may wait for up to ``BURST_FACTOR`` times the longest
  expected wait.
- While it is above the longest expected wait, there is overload. Then a request may wait for
  ``LASTING_SHARE`` of it. The queue is short then, and the pods are as busy as with a long one.
- While pods load adapters from disk, as after a start, both limits are higher (``COLD_SECONDS``).
  That passes, and those that wait are served meanwhile.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from lora_router.routing.overload import Overload
from lora_router.routing.pressures import Pressures
from lora_router.routing.priorities import DEFAULT
from lora_router.routing.refused_early import RefusedEarly

BURST_FACTOR = 3.0
"""A lower value refuses requests of bursts. With a higher value, a sudden overload makes those wait
for longer that come first."""
COLD_SECONDS = 0.2
"""Pods are cold while the adapters of those that were served last take longer to load, on average.
With a lower value, loads from host memory count as well. With a higher value, more requests are
refused while pods load every adapter from disk."""
COLD_BURST_FACTOR = 9.0
"""The same while pods are cold."""
COLD_OVERLOAD_FACTOR = 3.0
"""While pods are cold, there is overload from this times the longest expected wait. Lower values of
these two refuse more requests then. With higher values, fleets whose adapters never fit in host
memory serve everybody late when they are overloaded."""
LASTING_SHARE = 0.75
"""With a lower value, pods may be idle between two requests. With a higher value, requests are
served late."""
MOST_FACTOR = 9.0
"""An expected wait counts as this times the one from which there is overload, at most. With a lower
value, it takes longer until an overload is noticed. With a higher value, a fleet that stalled is
thought to be overloaded for longer."""
MOST_TENANTS = 64
"""Of how many tenants the pressure is known. Others have that of a tenant with one request."""


class Overrun:
    """How long requests would wait in one line if none had been refused."""

    __slots__ = ("_by_tenant", "_pressures", "refused")

    def __init__(self) -> None:
        self._pressures = Pressures()
        """Of a request that is the only one of its tenant, or has none."""
        self._by_tenant: OrderedDict[int, Pressures] = OrderedDict()
        """Of the requests of each tenant, the one that noted most recently last."""
        self.refused = RefusedEarly()
        """Those that were refused and would still wait."""

    def pressure(self, priority: int, tenant: int, now: float, tau: float) -> float:
        """Return how long requests of a priority and a tenant would wait on average.

        Args:
            priority: The priority.
            tenant: The tenant; 0: none.
            now: The time.
            tau: Seconds after which an expected wait counts a third.
        """
        pressure = self._pressures.of(priority, now, tau)
        own = self._by_tenant.get(tenant)
        return pressure if own is None else max(pressure, own.of(priority, now, tau))

    def note(self, priority: int, seconds: float, now: float, tau: float) -> None:
        """Record an expected wait, as if its tenant had no other request, or if it has none."""
        self._pressures.note(priority, seconds, now, tau)

    def note_of(self, tenant: int, priority: int, seconds: float, now: float, tau: float) -> None:
        """Record the expected wait of a tenant's request."""
        own = self._by_tenant.setdefault(tenant, Pressures())
        self._by_tenant.move_to_end(tenant)
        if len(self._by_tenant) > MOST_TENANTS:
            self._by_tenant.popitem(last=False)
        own.note(priority, seconds, now, tau)


@dataclass(frozen=True, slots=True)
class ExpectedWait:
    """How long a request that comes now will probably wait."""

    seconds: float | None = None
    """``None``: nobody knows."""
    overrun: Overrun | None = None
    """That of the line in which it would wait. ``None``: it is nobody's delay, because it would
    leave together with others."""
    unrefused: float | None = None
    """How long it would wait if nobody had been refused lately. ``None``: as above."""
    loading: float = 0.0
    """How long the adapters of those that were served last take to load, in seconds."""
    priority: int = DEFAULT
    """That of the request."""
    tenant: int = 0
    """Whose it is; 0: nobody's in particular."""
    alone: float | None = None
    """The same as ``unrefused``, if its tenant had no other request. ``None``: as that."""
    retry: float | None = None
    """The same as ``unrefused``, if the pods stand still or did lately, and go on at their usual
    pace then. ``None``: as that."""

    def is_too_long(self, overload: Overload, reason: str, now: float) -> bool:
        """Return whether a request is refused because of it.

        Args:
            overload: The settings.
            reason: Why it would wait.
            now: The time.
        """
        return self.seconds is not None and self.seconds > self.longest(overload, reason, now)

    def longest(self, overload: Overload, reason: str, now: float) -> float:
        """Return the longest expected wait of a request that is not refused now, in seconds."""
        usual = overload.longest_wait(reason)
        if self.overrun is not None:
            tau = overload.burst_seconds
            pressure = self.overrun.pressure(self.priority, self.tenant, now, tau)
            if pressure > self._overloaded_from(usual):
                return LASTING_SHARE * usual
        return (COLD_BURST_FACTOR if self._is_cold else BURST_FACTOR) * usual

    @property
    def _is_cold(self) -> bool:
        return self.loading > COLD_SECONDS

    def _overloaded_from(self, usual: float) -> float:
        """Return the pressure from which there is overload."""
        return COLD_OVERLOAD_FACTOR * usual if self._is_cold else usual

    @property
    def if_none_refused(self) -> float:
        """How long it would wait if nobody had been refused lately; 0: nobody knows."""
        return (self.seconds or 0.0) if self.unrefused is None else self.unrefused

    @property
    def retry_seconds(self) -> float:
        """After what time a request that is refused is served if it comes again."""
        return self.if_none_refused if self.retry is None else self.retry

    def note(self, overload: Overload, reason: str, now: float) -> None:
        """Record it, with the reason of the hold."""
        if self.overrun is not None and self.seconds is not None:
            most = MOST_FACTOR * self._overloaded_from(overload.longest_wait(reason))
            seconds, tau = min(self.if_none_refused, most), overload.burst_seconds
            if self.tenant:
                self.overrun.note_of(self.tenant, self.priority, seconds, now, tau)
            alone = seconds if self.alone is None else min(self.alone, most)
            self.overrun.note(self.priority, alone, now, tau)

    def refuse(self, key: Hashable, now: float) -> bool:
        """Count one that is refused because of it; return whether it was not counted yet."""
        if self.overrun is None or self.seconds is None:
            return False
        refused, seconds = self.overrun.refused, self.if_none_refused
        return refused.add(key, self.priority, now, seconds, self.tenant)


UNKNOWN = ExpectedWait()
