"""How the fleet reports what changed: one signal for each kind of change.

Rules:

- A listener is called synchronously, after the fleet is consistent again.
- A listener that raises does not stop the other listeners or the caller. The failure is reported to
  ``Changes.on_failure``.
- Nothing that a listener does may change pods or metrics. It may release and reserve requests.
"""

import logging
from collections.abc import Callable, Collection

from lora_router.fleet.pod_state import PodState

log = logging.getLogger("lora_router.fleet")

Listener = Callable[[Collection[PodState]], None]
"""Receives the records of the pods that changed."""

FailureObserver = Callable[[str, BaseException], None]
"""Receives the name of a listener that failed, and the exception that it raised."""


def log_failure(listener: str, error: BaseException) -> None:
    """Log a listener that failed. The default of ``Changes.on_failure``."""
    log.error("listener %s failed", listener, exc_info=error)


class Signal:
    """One kind of change."""

    __slots__ = ("_changes", "_listeners")

    def __init__(self, changes: "Changes") -> None:
        self._changes = changes
        self._listeners: tuple[Listener, ...] = ()

    def subscribe(self, listener: Listener) -> None:
        """Call ``listener`` after each change of this kind, in the order of subscription."""
        self._listeners = (*self._listeners, listener)

    def send(self, states: Collection[PodState]) -> None:
        """Call all listeners."""
        for listener in self._listeners:
            try:
                listener(states)
            except (Exception, SystemExit) as error:
                name = getattr(listener, "__qualname__", type(listener).__qualname__)
                self._changes.on_failure(name, error)


class Changes:
    """The signals of one fleet."""

    __slots__ = ("doubted", "on_failure", "pods", "released", "restarted", "scraped", "shared")

    def __init__(self) -> None:
        self.on_failure: FailureObserver = log_failure
        """Called with each listener that raised."""
        self.pods = Signal(self)
        """Pods joined, left, or changed, or their models did, or their health decided that they are
        or are not used. ``Fleet.get`` no longer returns a record that left."""
        self.doubted = Signal(self)
        """An answer showed that a pod's last list is wrong: the pod does not serve a model in it,
        or serves one that is not."""
        self.restarted = Signal(self)
        """A snapshot showed that a pod's server was started again, with nothing loaded."""
        self.scraped = Signal(self)
        """A pod has a new snapshot, or its old one expired."""
        self.shared = Signal(self)
        """Peers reported something new about pods."""
        self.released = Signal(self)
        """A request of this router ended on a pod."""
