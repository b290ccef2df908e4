"""Limits how often the traceback of the same error is logged.

A fault that each request meets would write a traceback for each of them. The log would lose what
else it says, and fill a disk. Errors are the same if they were raised and logged at the same place.
"""

import logging

from lora_router.log_limit import SUPPRESSED, LogLimit

BURST, SECONDS = 5, 10.0
"""How many tracebacks of the same error are written in how many seconds."""


class RepeatedErrors(logging.Filter):
    """Lets few records with the traceback of the same error pass, and counts the others.

    The next one that passes says how many were suppressed.
    """

    def __init__(self, limit: LogLimit | None = None) -> None:
        super().__init__()
        self._limit = limit or LogLimit(SECONDS, burst=BURST)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is written."""
        if not record.exc_info or record.exc_info[0] is None:
            return True
        kind, _, trace = record.exc_info
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        raised_at = None if trace is None else (trace.tb_frame.f_code.co_filename, trace.tb_lineno)
        suppressed = self._limit.allow((record.pathname, record.lineno, kind, raised_at))
        if suppressed is None:
            return False
        if suppressed:
            record.msg = record.getMessage() + SUPPRESSED % suppressed
            record.args = ()
        return True
