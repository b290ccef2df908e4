"""Applies the reports of one peer, and returns its shares.

Reports come from a stream in order. A stream that begins, or that lost a report, needs a complete
one: ``GapError``. Everything else that is wrong is a ``ReportError``, after which the reader is not
used any more.
"""

from collections.abc import Iterable, Sequence

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
    MAX_HELD_SECONDS,
    MAX_NAME_BYTES,
    MAX_NAMES_BYTES,
    MAX_PART_ROWS,
    MAX_PARTS,
    MAX_PODS,
    MAX_REQUESTS,
    MAX_ROUTERS,
    MAX_SENT_MS,
    MAX_USED,
    MAX_WEIGHT,
    ROW_BYTES,
    byte_length,
)
from lora_router.peering.pb.peering_pb2 import Held, Report
from lora_router.peering.tables import HeldRow, PodKey, Tables


class ReportError(ValueError):
    """A report that no router sends. The message says why."""

    def __init__(self, cause: str, message: str) -> None:
        self.cause = cause
        """``malformed`` or ``too-large``. Used as a metric label."""
        super().__init__(message)


class GapError(Exception):
    """The report continues one that did not arrive. A complete one is needed."""


class ReportReader:
    """What one peer has reported on one stream."""

    def __init__(self, router: str, every: float) -> None:
        """Create a reader of a stream that begins.

        Args:
            router: The peer's name.
            every: The interval of reports that the shares state.
        """
        self._router = router
        self._every = every
        self._tables = Tables()
        self._shares: dict[str, PodShare] = {}
        """By pod name."""
        self._changed: set[int] = set()
        """Pods that a part changed."""
        self._used: dict[str, UsedShare] = {}
        """What the parts of an unfinished report say of adapters that were used."""
        self._used_rows = 0
        self._sent: dict[str, SentShare] = {}
        """What the parts of an unfinished report say of prompts that were sent."""
        self._part = 0
        """The number of the next part; 0: a report begins."""

    @property
    def weight(self) -> int:
        """An estimate of the memory that this takes, in bytes."""
        tables = self._tables
        names = len(tables.pods) + len(tables.adapters)
        rows = tables.rows + len(tables.requests) + len(tables.held) + len(tables.ejected)
        reported = self._used_rows + len(self._sent)
        return tables.name_bytes + ROW_BYTES * (names + rows + reported)

    def read(self, report: Report) -> LedgerShare | None:
        """Apply a report, or a part of one.

        Returns:
            The peer's share, or ``None`` if further parts follow.

        Raises:
            GapError: An earlier report is missing.
            ReportError: The report is malformed, or exceeds a limit.
        """
        self._check_order(report)
        self._check_size(report)
        self._add_names(report)
        self._apply_requests(report)
        self._apply_counts(report)
        self._apply_held(report)
        self._apply_ejected(report)
        self._add_used(report)
        self._add_sent(report)
        self._share_changed()
        if report.more_follows:
            self._part += 1
            if self._part >= MAX_PARTS:
                raise ReportError("too-large", f"a report has more than {MAX_PARTS} parts")
            return None
        self._part = 0
        return self._finish(report)

    def _check_order(self, report: Report) -> None:
        tables = self._tables
        if not report.number:
            raise ReportError("malformed", "a report has no number")
        if report.part:
            if report.part != self._part or report.number != tables.number:
                self._part = 0
                tables.number = 0
                raise GapError
            return
        if self._part or (report.base and report.base != tables.number):
            # What an unfinished report changed cannot be taken back.
            self._part = 0
            tables.number = 0
            if report.base:
                raise GapError
        self._used, self._used_rows, self._sent = {}, 0, {}
        if not report.base:
            self._tables = tables = Tables()
            self._shares = {}
            self._changed = set()
        elif report.number <= report.base:
            raise ReportError("malformed", "a report continues a later one")
        tables.number = report.number

    def _check_size(self, report: Report) -> None:
        rows = (
            len(report.pod)
            + len(report.count_pod)
            + len(report.held)
            + len(report.no_longer_held)
            + len(report.ejected)
            + len(report.no_longer_ejected)
            + len(report.new_pods)
            + len(report.new_adapters)
            + len(report.used)
            + len(report.sent_pod)
            + sum(len(row.adapters) for row in report.used)
        )
        if rows > MAX_PART_ROWS:
            raise ReportError("too-large", f"a message has {rows} rows; at most {MAX_PART_ROWS}")
        if (
            len(report.pod) != len(report.pod_requests)
            or len(report.sent_pod) != len(report.sent_ms)
            or not len(report.count_pod) == len(report.count_adapter) == len(report.count_requests)
        ):
            raise ReportError("malformed", "columns of different lengths")

    def _add_names(self, report: Report) -> None:
        tables = self._tables
        for pod in report.new_pods:
            key = PodKey(pod.name, pod.address, pod.uid)
            self._count_names(*key)
            tables.pods.append(key)
        for adapter in report.new_adapters:
            self._count_names(adapter)
            tables.adapters.append(adapter)
        for router in report.new_routers:
            self._count_names(router)
            tables.routers.append(router)
        for what, table, most in (
            ("pods", tables.pods, MAX_PODS),
            ("adapters", tables.adapters, MAX_ADAPTERS),
            ("routers", tables.routers, MAX_ROUTERS),
        ):
            if len(table) > most:
                raise ReportError("too-large", f"names of more than {most} {what}")

    def _count_names(self, *names: str) -> None:
        tables = self._tables
        for name in names:
            if byte_length(name) > MAX_NAME_BYTES:
                raise ReportError("too-large", f"a name is longer than {MAX_NAME_BYTES}")
            # As memory: Python stores some characters in four bytes.
            tables.name_bytes += len(name) if name.isascii() else 4 * len(name)
        if not names[0]:
            raise ReportError("malformed", "an empty name")
        if tables.name_bytes > 4 * MAX_NAMES_BYTES:
            raise ReportError("too-large", "names are too long")

    def _apply_requests(self, report: Report) -> None:
        tables = self._tables
        _check_positions(report.pod, tables.pods)
        for pod, requests in zip(report.pod, report.pod_requests, strict=True):
            if requests > MAX_REQUESTS:
                raise ReportError("too-large", f"{requests} requests on a pod")
            if requests:
                tables.requests[pod] = requests
            else:
                tables.requests.pop(pod, None)
            self._changed.add(pod)

    def _apply_counts(self, report: Report) -> None:
        tables, changed = self._tables, self._changed
        _check_positions(report.count_pod, tables.pods)
        _check_positions(report.count_adapter, tables.adapters)
        all_counts = tables.counts
        for pod, adapter, requests in zip(
            report.count_pod, report.count_adapter, report.count_requests, strict=True
        ):
            counts = all_counts.get(pod)
            if counts is None:
                counts = all_counts[pod] = {}
            before = len(counts)
            if requests > MAX_REQUESTS:
                raise ReportError("too-large", f"{requests} requests for an adapter")
            if requests:
                counts[adapter] = requests
                if len(counts) > MAX_ADAPTERS_PER_POD:
                    raise ReportError("too-large", f"more than {MAX_ADAPTERS_PER_POD} on a pod")
            else:
                counts.pop(adapter, None)
            tables.rows += len(counts) - before
            changed.add(pod)
        if tables.rows > MAX_COUNTS:
            raise ReportError("too-large", f"more than {MAX_COUNTS} adapters in flight")

    def _apply_held(self, report: Report) -> None:
        tables = self._tables
        for row in report.held:
            _check_held(row, tables)
            tables.held[row.adapter] = HeldRow(
                row.since_ms, row.wanted_pod, row.closed_pod, row.closed_adapter, row.priority
            )
        for adapter in report.no_longer_held:
            tables.held.pop(adapter, None)
        if len(tables.held) > MAX_HELD:
            raise ReportError("too-large", f"more than {MAX_HELD} held adapters")

    def _apply_ejected(self, report: Report) -> None:
        tables = self._tables
        _check_positions(report.ejected, tables.pods)
        tables.ejected.update(report.ejected)
        tables.ejected.difference_update(report.no_longer_ejected)
        if len(tables.ejected) > MAX_EJECTED:
            raise ReportError("too-large", f"more than {MAX_EJECTED} ejected pods")

    def _add_used(self, report: Report) -> None:
        tables, used = self._tables, self._used
        for row in report.used:
            _check_positions((row.pod,), tables.pods)
            _check_positions(row.adapters, tables.adapters)
            if row.tenths_ago and len(row.tenths_ago) != len(row.adapters):
                raise ReportError("malformed", "columns of different lengths")
            self._used_rows += 1 + len(row.adapters)
            if self._used_rows > MAX_USED:
                raise ReportError("too-large", f"more than {MAX_USED} adapters were used")
            key = tables.pods[row.pod]
            names = map(tables.adapters.__getitem__, row.adapters)
            if row.tenths_ago:
                ages = dict(zip(names, [tenths / 10 for tenths in row.tenths_ago], strict=True))
            else:
                ages = dict.fromkeys(names, 0.0)
            used[key.name] = UsedShare((key.address, key.uid), ages)

    def _add_sent(self, report: Report) -> None:
        pods = self._tables.pods
        _check_positions(report.sent_pod, pods)
        if max(report.sent_ms, default=0) > MAX_SENT_MS:
            raise ReportError("too-large", "prompts keep a pod busy for too long")
        for position, milliseconds in zip(report.sent_pod, report.sent_ms, strict=True):
            key = pods[position]
            self._sent[key.name] = SentShare((key.address, key.uid), milliseconds / 1000)

    def _share_changed(self) -> None:
        """Make the shares of the pods that a part changed.

        With each part, so that the last one of a long report does not take longer than the others.
        """
        tables, shares = self._tables, self._shares
        adapters = tables.adapters
        for position in self._changed:
            key = tables.pods[position]
            server = (key.address, key.uid)
            requests, counts = tables.requests.get(position, 0), tables.counts.get(position)
            if requests:
                named = {} if counts is None else {adapters[a]: n for a, n in counts.items()}
                shares[key.name] = PodShare(server, requests, named)
            elif (last := shares.get(key.name)) is not None and last.server == server:
                del shares[key.name]
            if not counts:
                tables.counts.pop(position, None)
        self._changed.clear()

    def _finish(self, report: Report) -> LedgerShare:
        tables = self._tables
        adapters = tables.adapters
        if len(report.acknowledged) != len(tables.routers):
            raise ReportError("malformed", "acknowledgements do not fit the table of routers")
        heard = dict(zip(tables.routers, report.acknowledged, strict=True))
        now_ms = report.now_ms
        held = {adapters[a]: self._held(row, now_ms) for a, row in tables.held.items()}
        ejected = {
            key.name: (key.address, key.uid) for key in map(tables.pods.__getitem__, tables.ejected)
        }
        used, idle = (self._used, {}) if report.base else ({}, self._used)
        sent = self._sent
        self._used, self._used_rows, self._sent = {}, 0, {}
        return LedgerShare(
            self._router,
            tables.number,
            self._every,
            dict(self._shares),
            held,
            heard,
            ejected,
            used,
            idle,
            sent,
            may_load=not report.loads_no_adapters,
        )

    def _held(self, row: HeldRow, now_ms: int) -> HeldShare:
        tables = self._tables
        seconds = min(max(0.0, (now_ms - row.since_ms) / 1000), MAX_HELD_SECONDS)
        wanted = tables.pods[row.wanted_pod - 1].name if row.wanted_pod else None
        closed = None
        if row.closed_pod:
            closed = (tables.pods[row.closed_pod - 1].name, tables.adapters[row.closed_adapter - 1])
        return HeldShare(seconds, wanted, closed, row.priority)


def _check_positions(positions: Sequence[int], table: Sequence[object]) -> None:
    if positions and max(positions) >= len(table):
        raise ReportError("malformed", "a position is outside its table")


def _check_held(row: Held, tables: Tables) -> None:
    pods, adapters = len(tables.pods), len(tables.adapters)
    if (
        row.adapter >= adapters
        or row.wanted_pod > pods
        or row.closed_pod > pods
        or row.closed_adapter > adapters
        or bool(row.closed_pod) != bool(row.closed_adapter)
    ):
        raise ReportError("malformed", "a position is outside its table")


def is_too_heavy(reader: ReportReader, readers: Iterable[ReportReader], most: int) -> bool:
    """Return whether the reports of all peers take too much memory, and those of one much of it.

    Args:
        reader: The reader of that one.
        readers: The readers of all peers.
        most: How many peers there may be. Half of an equal share of the memory is never too much.
    """
    if reader.weight <= MAX_WEIGHT // (2 * most):
        return False
    return sum(each.weight for each in readers) > MAX_WEIGHT
