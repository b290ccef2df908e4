"""What is known of the reads of each pod by all routers. Records only."""

import math
from dataclasses import dataclass, field

from lora_router.fleet.reading import Page, Reading


@dataclass(slots=True)
class SharingCounts:
    """Totals since the start."""

    used: int = 0
    """Readings of others that were used."""
    late: int = 0
    """Pages that were read here because nothing was heard of them in time."""
    audits: int = 0
    unfair: int = 0
    """Audits that were given up, because the readings lay too far apart to be compared."""
    contradictions: int = 0
    distrusted: int = 0
    """How many times a router began not to be believed."""


@dataclass(slots=True)
class Audit:
    """What this router read of a page to compare, and what another router told around it."""

    source: str
    """Who told the readings."""
    own: list[Reading] = field(default_factory=list)
    told: list[Reading] = field(default_factory=list)
    """The last one before each of ``own``, and the first one after it."""


class PageReads:
    """What is known of the reads of one page of one pod."""

    __slots__ = (
        "audit",
        "auditing",
        "doubted",
        "failing",
        "late",
        "read_at",
        "source",
        "told",
    )

    def __init__(self) -> None:
        self.read_at = -math.inf
        """When the page was read last, by anybody."""
        self.source: str | None = None
        """Who told the last reading; ``None``: it is this router's own."""
        self.told: Reading | None = None
        """What that router told."""
        self.late = False
        """Whether nobody told a reading in time."""
        self.doubted = False
        """Whether somebody else failed to read it, so that this router looks for itself."""
        self.failing = False
        """Whether this router's last read failed."""
        self.auditing = False
        """Whether this router is to read the page only to compare."""
        self.audit: Audit | None = None
        """The audit under way. It goes on when the next reading is told."""


class PodReads:
    """What is known of the reads of one pod."""

    __slots__ = ("alone_until", "metrics", "models", "rank", "reader", "version")

    def __init__(self) -> None:
        self.metrics = PageReads()
        self.models = PageReads()
        self.version = -1
        """The version of the readers for which the following two hold."""
        self.rank = 0
        """This router's place in the order of the pod. 0: this router reads it."""
        self.reader: str | None = None
        """Who reads it, if it is another router."""
        self.alone_until = -math.inf
        """Until when nobody else is believed about it."""

    def page(self, page: Page) -> PageReads:
        """Return what is known of a page."""
        return self.metrics if page == "metrics" else self.models
