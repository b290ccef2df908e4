"""The signals of a router's process.

SIGTERM, SIGINT   Drain, then end. A second one ends the drain at once. One that comes while the
                  program starts is kept until it can drain; a second one then ends it at once.
SIGHUP            Reload. It never ends the process, from the first lines of the program to its end.
others            SIGUSR1, SIGUSR2, SIGALRM, SIGIO and SIGPIPE are ignored: they end a process by
                  default, and a router that is mistaken for another program should go on.

The module imports little, so that the signals are handled before anything else is imported.
"""

import signal
from collections.abc import Callable
from types import FrameType

_IGNORED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGIO, signal.SIGPIPE)
_STOPPING = (signal.SIGTERM, signal.SIGINT)


class Stops:
    """Receives SIGTERM and SIGINT for the process, also before there is anything to drain.

    By default a SIGTERM ends the process with a status that tells of a failure, and on PID 1 of a
    container it is lost.
    """

    def __init__(self) -> None:
        self._received = 0
        self._stop: Callable[[], object] | None = None

    def hold(self) -> None:
        """Receive the signals from now on. Must be called in the main thread."""
        for number in _STOPPING:
            signal.signal(number, self._note)

    def follow(self, stop: Callable[[], object]) -> None:
        """Call ``stop`` for each signal, and once if there was one before.

        It is called as a signal handler: between any two instructions of the main thread.
        """
        # One signal must not count as two: it would end the drain.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
        try:
            self._stop = stop
            if self._received:
                stop()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def ignore(self) -> None:
        """Ignore the signals from now on, because the process ends."""
        self._stop = None
        for number in _STOPPING:
            signal.signal(number, signal.SIG_IGN)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._received += 1
        if self._stop is not None:
            self._stop()
        elif self._received > 1:
            raise SystemExit(128 + number)


class Hangups:
    """Receives SIGHUP for the process, also before there is anything to reload."""

    def __init__(self) -> None:
        self._received = False
        self._reload: Callable[[], object] | None = None

    def hold(self) -> None:
        """Receive the signal from now on. Must be called in the main thread."""
        # Not the loop's: a loop that is closed gives the signal back its deadly default.
        signal.signal(signal.SIGHUP, self._note)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)

    def follow(self, reload: Callable[[], object]) -> None:
        """Call ``reload`` for each signal, and once if there was one before.

        It is called as a signal handler: between any two instructions of the main thread.
        """
        self._reload = reload
        if self._received:
            reload()

    def ignore(self) -> None:
        """Ignore the signal from now on, because the process ends."""
        self._reload = None
        # Python gives a signal that it handles back its default at the end, but no ignored one.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._received = True
        if self._reload is not None:
            self._reload()


hangups = Hangups()
stops = Stops()
"""Those of this process: the disposition of a signal belongs to the process, too."""
