"""Who is told of what the scraper reads.

A follower that raises does not end the reads. The failure is reported to the supervisor. Only
followers of lists run as a part of the read: one that raises makes that read fail.
"""

from collections.abc import Callable

from lora_router.fleet.pod_state import PodState
from lora_router.fleet.reading import Reading
from lora_router.supervision import Supervisor


class Followers:
    """The listeners of one scraper, called in the order of subscription."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._on_looked: tuple[Callable[[], None], ...] = ()
        self._on_reading: tuple[Callable[[Reading], None], ...] = ()
        self._on_list: tuple[Callable[[PodState, float], None], ...] = ()

    def subscribe_looked(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` when a round of ``Scraper.look_again`` has ended."""
        self._on_looked = (*self._on_looked, listener)

    def subscribe_readings(self, listener: Callable[[Reading], None]) -> None:
        """Call ``listener`` with each reading that has been used, and with each failed read."""
        self._on_reading = (*self._on_reading, listener)

    def subscribe_lists(self, listener: Callable[[PodState, float], None]) -> None:
        """Call ``listener`` with each pod whose list was read here, and when it was asked for it.

        The list is in the fleet by then. The listener may change the fleet.
        """
        self._on_list = (*self._on_list, listener)

    def looked(self) -> None:
        """Tell that a round has ended."""
        for listener in self._on_looked:
            try:
                listener()
            except Exception as error:
                self._supervisor.failed("looked-listener", error)

    def read(self, reading: Reading) -> None:
        """Tell of a reading that has been used, or of a failed read."""
        for listener in self._on_reading:
            try:
                listener(reading)
            except Exception as error:
                self._supervisor.failed("reading-listener", error)

    def listed(self, state: PodState, asked_at: float) -> None:
        """Tell of a pod whose list was read here.

        Raises:
            Exception: Whatever a listener raises.
        """
        for listener in self._on_list:
            listener(state, asked_at)
