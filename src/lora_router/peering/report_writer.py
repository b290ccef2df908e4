"""Makes the reports that this router sends, from its shares.

A report is made once, and the same bytes go to all peers. The names that it uses are sent once, in
tables that grow. ``begin_again`` makes new tables, so that names that are no longer used do not
stay in them.
"""

from collections.abc import Callable, Iterable, Mapping
from heapq import nlargest
from itertools import islice

from lora_router.fleet.peer_ledgers import (
    HeldShare,
    LedgerShare,
    PodShare,
    SentShare,
    UsedShare,
)
from lora_router.peering.limits import (
    MAX_ADAPTERS,
    MAX_ADAPTERS_PER_POD,
    MAX_COUNTS,
    MAX_EJECTED,
    MAX_HELD,
    MAX_NAME_BYTES,
    MAX_NAMES_BYTES,
    MAX_PODS,
    MAX_REQUESTS,
    MAX_ROUTERS,
    MAX_SENT_MS,
    REPORT_USED,
    byte_length,
)
from lora_router.peering.report_parts import ReportParts
from lora_router.peering.tables import HeldRow, PodKey, Tables

_MOST_PRIORITY = 2**31 - 1
_NOTHING = PodShare(("", ""), 0, {})


class ReportWriter:
    """Knows what was reported last, and what has to be sent so that others know it too."""

    def __init__(self, idle: Callable[[float, int], Mapping[str, UsedShare]] | None = None) -> None:
        """Create a writer that has reported nothing.

        Args:
            idle: Returns the idle adapters for a complete report: at a time on this router's clock,
                up to a number.
        """
        self._idle = idle
        self._tables = Tables()
        self._idle_rows = 0
        """The idle adapters in the tables, as of the last complete report to all."""
        self._now_ms = 0
        self._pods: dict[PodKey, int] = {}
        self._adapters: dict[str, int] = {}
        self._routers: dict[str, int] = {}
        """The positions of the names in the tables."""
        self._reported: Mapping[str, PodShare] = {}
        """The requests in flight in the last share, by pod name."""

    @property
    def number(self) -> int:
        """The number of the last report; 0: there was none."""
        return self._tables.number

    @property
    def is_sparse(self) -> bool:
        """Whether most names in the tables are not used."""
        tables = self._tables
        used = tables.rows + self._idle_rows
        return len(tables.adapters) > 1000 and len(tables.adapters) > 4 * used

    def begin_again(self) -> None:
        """Forget what was reported. The next report is complete."""
        self._tables = Tables()
        self._pods, self._adapters, self._routers = {}, {}, {}
        self._reported = {}

    def update(self, share: LedgerShare, now: float) -> list[bytes]:
        """Return the messages that report what changed since the last share.

        Args:
            share: The new share.
            now: Seconds on this router's clock.
        """
        tables = self._tables
        base, tables.number = tables.number, share.number
        tables.may_load = share.may_load
        self._now_ms = int(now * 1000)
        parts = ReportParts(share.number, base, self._now_ms)
        self._report_requests(parts, share)
        self._report_held(parts, share)
        self._report_ejected(parts, share)
        self._report_used(parts, share.used if base else self._idle_now())
        self._report_sent(parts, share.sent)
        self._report_acknowledged(parts, share)
        parts.report.loads_no_adapters = not share.may_load
        return parts.finish()

    def complete(self) -> list[bytes]:
        """Return the messages that report everything, for a peer that has nothing."""
        tables = self._tables
        parts = ReportParts(tables.number, 0, self._now_ms)
        for pod in tables.pods:
            parts.add_pod(pod)
        for adapter in tables.adapters:
            parts.add_adapter(adapter)
        parts.report.new_routers.extend(tables.routers)
        for position, requests in tables.requests.items():
            parts.set_requests(position, requests)
        for position, counts in tables.counts.items():
            parts.set_counts(position, counts)
        for position, row in tables.held.items():
            parts.set_held(position, row)
        parts.set_ejected(tables.ejected, ())
        idle = self._idle_now()
        for name, used in islice(idle.items(), REPORT_USED):
            found = self._pods.get(PodKey(name, *used.server))
            if found is not None:
                # No name is added here, since those that have the tables would not learn of it.
                # What is not in them was used by peers lately, which report it themselves.
                parts.set_used(found, used, _each(idle), self._adapters)
        parts.report.acknowledged.extend(tables.acknowledged)
        parts.report.loads_no_adapters = not tables.may_load
        return parts.finish()

    # What changed

    def _report_requests(self, parts: ReportParts, share: LedgerShare) -> None:
        before, self._reported = self._reported, dict(share.pods)
        for name in before.keys() - share.pods.keys():
            self._report_server(parts, name, before[name].server, _NOTHING)
        for name, pod_share in share.pods.items():
            last = before.get(name)
            if last is pod_share:
                continue
            if last is not None and last.server != pod_share.server:
                self._report_server(parts, name, last.server, _NOTHING)
            self._report_server(parts, name, pod_share.server, pod_share)

    def _report_server(
        self, parts: ReportParts, name: str, server: tuple[str, str], share: PodShare
    ) -> None:
        position = self._pod(parts, name, server)
        if position is not None:
            self._report_pod(parts, position, share)

    def _report_pod(self, parts: ReportParts, position: int, share: PodShare) -> None:
        tables = self._tables
        requests = min(share.requests, MAX_REQUESTS)
        if requests != tables.requests.get(position, 0):
            parts.set_requests(position, requests)
            if requests:
                tables.requests[position] = requests
            else:
                tables.requests.pop(position, None)
        counts = tables.counts.get(position, {})
        after: dict[int, int] = {}
        known = self._adapters.get
        for adapter, number in islice(share.adapters.items(), MAX_ADAPTERS_PER_POD):
            adapter_position = known(adapter)
            if adapter_position is None:
                adapter_position = self._adapter(parts, adapter)
            if adapter_position is not None:
                after[adapter_position] = min(number, MAX_REQUESTS)
        if after == counts or tables.rows + len(after) - len(counts) > MAX_COUNTS:
            return
        changed = dict.fromkeys(counts.keys() - after.keys(), 0)
        changed.update(after.items() - counts.items())
        parts.set_counts(position, changed)
        tables.rows += len(after) - len(counts)
        if after:
            tables.counts[position] = after
        else:
            tables.counts.pop(position, None)

    def _report_held(self, parts: ReportParts, share: LedgerShare) -> None:
        tables = self._tables
        if not share.held and not tables.held:
            return
        after: dict[int, HeldRow] = {}
        for adapter, held in _longest(share.held):
            position = self._adapter(parts, adapter)
            if position is not None:
                row = self._held_row(parts, share, held, tables.held.get(position))
                after[position] = row
        for position in tables.held.keys() - after.keys():
            parts.end_held(position)
        for position, row in after.items():
            if tables.held.get(position) != row:
                parts.set_held(position, row)
        tables.held = after

    def _held_row(
        self, parts: ReportParts, share: LedgerShare, held: HeldShare, before: HeldRow | None
    ) -> HeldRow:
        since = max(0, self._now_ms - int(held.seconds * 1000))
        # Rounding must not make a new row of each report.
        if before is not None and abs(before.since_ms - since) <= 2:
            since = before.since_ms
        wanted = closed_pod = closed_adapter = None
        if held.wanted is not None:
            wanted = self._known_pod(parts, share, held.wanted)
        if held.closed is not None:
            closed_pod = self._known_pod(parts, share, held.closed[0])
            closed_adapter = self._adapter(parts, held.closed[1])
        if closed_pod is None or closed_adapter is None:
            closed_pod = closed_adapter = None
        priority = min(max(-_MOST_PRIORITY, held.priority), _MOST_PRIORITY)
        return HeldRow(
            since,
            _plus_one(wanted),
            _plus_one(closed_pod),
            _plus_one(closed_adapter),
            priority,
        )

    def _report_ejected(self, parts: ReportParts, share: LedgerShare) -> None:
        tables = self._tables
        if not share.ejected and not tables.ejected:
            return
        found = (
            self._pod(parts, name, server)
            for name, server in islice(share.ejected.items(), MAX_EJECTED)
        )
        after = {position for position in found if position is not None}
        parts.set_ejected(after - tables.ejected, tables.ejected - after)
        tables.ejected = after

    def _report_used(self, parts: ReportParts, used: Mapping[str, UsedShare]) -> None:
        rows = 0
        for name, share in islice(used.items(), REPORT_USED):
            pod = self._pod(parts, name, share.server)
            if pod is not None:
                rows += parts.set_used(pod, share, _each(used), self._adapters, self._adapter)
        if not parts.report.base:
            self._idle_rows = rows

    def _report_sent(self, parts: ReportParts, sent: Mapping[str, SentShare]) -> None:
        for name, share in sent.items():
            pod = self._pod(parts, name, share.server)
            if pod is not None:
                parts.add_sent(pod, min(int(share.seconds * 1000), MAX_SENT_MS))

    def _idle_now(self) -> Mapping[str, UsedShare]:
        return {} if self._idle is None else self._idle(self._now_ms / 1000, REPORT_USED)

    def _report_acknowledged(self, parts: ReportParts, share: LedgerShare) -> None:
        tables = self._tables
        for router in share.heard:
            if router not in self._routers and len(tables.routers) < MAX_ROUTERS:
                self._routers[router] = len(tables.routers)
                tables.routers.append(router)
                parts.report.new_routers.append(router)
        tables.acknowledged = [share.heard.get(router, 0) for router in tables.routers]
        parts.report.acknowledged.extend(tables.acknowledged)

    # The positions of names

    def _pod(self, parts: ReportParts, name: str, server: tuple[str, str]) -> int | None:
        key = PodKey(name, *server)
        position = self._pods.get(key)
        tables = self._tables
        if position is None and len(tables.pods) < MAX_PODS and self._has_room(*key):
            position = self._pods[key] = len(tables.pods)
            tables.pods.append(key)
            parts.add_pod(key)
        return position

    def _known_pod(self, parts: ReportParts, share: LedgerShare, name: str) -> int | None:
        """Return the position of a pod that is only referred to by its name."""
        found = share.pods.get(name)
        return self._pod(parts, name, ("", "") if found is None else found.server)

    def _adapter(self, parts: ReportParts, name: str) -> int | None:
        position = self._adapters.get(name)
        tables = self._tables
        if position is None and len(tables.adapters) < MAX_ADAPTERS and self._has_room(name):
            position = self._adapters[name] = len(tables.adapters)
            tables.adapters.append(name)
            parts.add_adapter(name)
        return position

    def _has_room(self, *names: str) -> bool:
        try:
            sizes = [byte_length(name) for name in names]
        except UnicodeEncodeError:
            return False
        if max(sizes) > MAX_NAME_BYTES or not sizes[0]:
            return False
        total = self._tables.name_bytes + sum(sizes)
        if total > MAX_NAMES_BYTES:
            return False
        self._tables.name_bytes = total
        return True


def _longest(held: Mapping[str, HeldShare]) -> Iterable[tuple[str, HeldShare]]:
    """Return the held adapters, or those that are served first if they are too many."""
    if len(held) <= MAX_HELD:
        return held.items()
    return nlargest(MAX_HELD, held.items(), key=lambda item: item[1].place)


def _each(used: Mapping[str, UsedShare]) -> int:
    """Return how many adapters of each pod can be reported."""
    return max(1, REPORT_USED // len(used))


def _plus_one(position: int | None) -> int:
    return 0 if position is None else position + 1
