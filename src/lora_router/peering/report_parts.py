"""The parts of one report: messages of a bounded length, in the order in which they are sent.

A report that is too long for one message is sent in parts, and ``more_follows`` is set in all but
the last. A part has at most ``PART_ROWS`` rows and names, and ``PART_NAME_BYTES`` of names
(``limits``).
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import islice

from lora_router.fleet.peer_ledgers import UsedShare
from lora_router.peering.limits import MAX_USED_SECONDS, PART_NAME_BYTES, PART_ROWS, byte_length
from lora_router.peering.pb.peering_pb2 import Held, PeerMessage, Pod, Report, Used
from lora_router.peering.tables import HeldRow, PodKey


class ReportParts:
    """The parts of one report. The last one is not finished.

    Positions are those of the names in the tables (``tables``).
    """

    def __init__(self, number: int, base: int, now_ms: int) -> None:
        self._finished: list[bytes] = []
        self._room = PART_ROWS
        self._name_room = PART_NAME_BYTES
        self.report = Report(number=number, base=base, now_ms=now_ms)
        """The part that is being written."""

    def add_pod(self, pod: PodKey) -> None:
        """Add a pod to the table of pods."""
        self._take_name(sum(map(byte_length, pod)))
        self.report.new_pods.append(Pod(name=pod.name, address=pod.address, uid=pod.uid))

    def add_adapter(self, name: str) -> None:
        """Add an adapter to the table of adapters."""
        self._take_name(byte_length(name))
        self.report.new_adapters.append(name)

    def set_requests(self, pod: int, requests: int) -> None:
        """Set the number of requests in flight on a pod."""
        self._take_row()
        report = self.report
        report.pod.append(pod)
        report.pod_requests.append(requests)

    def set_counts(self, pod: int, counts: Mapping[int, int]) -> None:
        """Set the requests of some adapters on a pod. They must not be more than ``PART_ROWS``."""
        if self._room < len(counts):
            self._next_part()
        self._room -= len(counts)
        report = self.report
        # Whole columns: each call of protobuf costs more than a number does.
        report.count_pod.extend([pod] * len(counts))
        report.count_adapter.extend(counts.keys())
        report.count_requests.extend(counts.values())

    def add_sent(self, pod: int, milliseconds: int) -> None:
        """Add how long a pod needs for prompts."""
        self._take_row()
        report = self.report
        report.sent_pod.append(pod)
        report.sent_ms.append(milliseconds)

    def set_held(self, adapter: int, row: HeldRow) -> None:
        """Set which requests are held for an adapter."""
        self._take_row()
        self.report.held.append(
            Held(
                adapter=adapter,
                since_ms=row.since_ms,
                wanted_pod=row.wanted_pod,
                closed_pod=row.closed_pod,
                closed_adapter=row.closed_adapter,
                priority=row.priority,
            )
        )

    def end_held(self, adapter: int) -> None:
        """Report that no request is held for an adapter any more."""
        self._take_row()
        self.report.no_longer_held.append(adapter)

    def set_ejected(self, ejected: Iterable[int], no_longer: Iterable[int]) -> None:
        """Report the pods that were ejected, and those that no longer are."""
        for position in ejected:
            self._take_row()
            self.report.ejected.append(position)
        for position in no_longer:
            self._take_row()
            self.report.no_longer_ejected.append(position)

    def set_used(
        self,
        pod: int,
        used: UsedShare,
        most: int,
        known: Mapping[str, int],
        add: "Callable[[ReportParts, str], int | None] | None" = None,
    ) -> int:
        """Add the ``most`` adapters of a pod that were used last; return how many were added.

        Their positions are ``known``, or those that ``add`` gives them.
        """
        adapters, tenths = [], []
        for name, age in islice(reversed(used.adapters.items()), most):
            found = known.get(name)
            if found is None and (add is None or (found := add(self, name)) is None):
                continue
            adapters.append(found)
            tenths.append(int(10 * age if age < MAX_USED_SECONDS else 10 * MAX_USED_SECONDS))
        if adapters:
            if self._room < len(adapters):
                self._next_part()
            self._room -= len(adapters)
            adapters.reverse()
            tenths.reverse()
            times = tenths if any(tenths) else ()
            self.report.used.append(Used(pod=pod, adapters=adapters, tenths_ago=times))
        return len(adapters)

    def finish(self) -> list[bytes]:
        """Return the messages."""
        self._finished.append(PeerMessage(report=self.report).SerializeToString())
        return self._finished

    def _take_row(self) -> None:
        self._room -= 1
        if self._room < 0:
            self._next_part()
            self._room -= 1

    def _take_name(self, size: int) -> None:
        self._room -= 1
        self._name_room -= size + 16
        if self._room < 0 or self._name_room < 0:
            self._next_part()
            self._room -= 1
            self._name_room -= size + 16

    def _next_part(self) -> None:
        part = self.report
        part.more_follows = True
        self._finished.append(PeerMessage(report=part).SerializeToString())
        self.report = Report(
            number=part.number, base=part.base, now_ms=part.now_ms, part=len(self._finished)
        )
        self._room = PART_ROWS
        self._name_room = PART_NAME_BYTES
