"""Tells Ctrl-C from a ``KeyboardInterrupt`` that an algorithm raised."""

import signal


def let_interrupt_pass(error: BaseException) -> None:
    """Raise the error again if somebody pressed Ctrl-C, and it is not an algorithm's own.

    A router handles SIGINT in its event loop. So only the simulator and tests can be interrupted in
    the midst of an algorithm.
    """
    if (
        isinstance(error, KeyboardInterrupt)
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):
        raise error
