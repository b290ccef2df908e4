"""The debug pages, as ``/debug/…`` serves them. ``docs/debug.md`` has their schema."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct, field

from lora_router.debug.fact_rows import PodFacts, RouterFacts
from lora_router.debug.rows import (
    AdapterRow,
    DecisionRow,
    ExplainedDecision,
    Explanation,
    HeldRow,
    LoaderStep,
    Obeyed,
    PodRow,
    RouterRow,
)
from lora_router.debug.slices import in_slices

_ROWS_AT_ONCE = 8
NEWEST_DECISIONS = 20
"""Abnormal requests that `top` asks for. How many others there are is not known."""

At = Annotated[float, Meta(description="When the page was made, in seconds since 1970.")]
Unreachable = Annotated[list[str], Meta(description="Processes that did not answer in time.")]
More = Annotated[int, Meta(description="Rows that are left out because of the limit.")]


class Page(Struct, kw_only=True):
    """What all pages have."""

    at: At = 0.0
    unreachable: Unreachable = field(default_factory=list)


class RoutersPage(Page, kw_only=True):
    """The processes that act as one router."""

    routers: Annotated[list[RouterRow], Meta(description="By name.")] = []


class PodsPage(Page, kw_only=True):
    """The pods."""

    pods: Annotated[list[PodRow], Meta(description="By name.")] = []


class AdaptersPage(Page, kw_only=True):
    """The adapters."""

    adapters: Annotated[list[AdapterRow], Meta(description="The busiest first.")] = []
    more: More = 0


class StepsPage(Page, kw_only=True):
    """The loads and unloads that are to be done."""

    steps: Annotated[list[LoaderStep], Meta(description="By pod, the most urgent first.")] = []
    more: More = 0


class OrderPage(Obeyed, kw_only=True):
    """What became of an order."""

    at: At = 0.0


class HeldPage(Page, kw_only=True):
    """The requests that wait."""

    held: Annotated[list[HeldRow], Meta(description="Those that wait longest first.")] = []
    more: More = 0


class DecisionsPage(Page, kw_only=True):
    """Decisions."""

    decisions: Annotated[list[DecisionRow], Meta(description="The newest first.")] = []


class FactsPage(Page, kw_only=True):
    """What the doctor needs to know besides."""

    routers: Annotated[list[RouterFacts], Meta(description="The processes.")] = []
    pods: Annotated[list[PodFacts], Meta(description="By name.")] = []


class DecisionPage(ExplainedDecision, kw_only=True):
    """One decision."""


class ExplainPage(Explanation, kw_only=True):
    """What would become of a request now."""

    at: At = 0.0
    others: Annotated[
        list[Explanation], Meta(description="The same of routers that would answer otherwise.")
    ] = field(default_factory=list)
    unreachable: Unreachable = field(default_factory=list)


async def json_of(page: Struct) -> bytes:
    """Return a page as JSON. Long lists are encoded in slices."""
    pieces: list[bytes] = []
    encode = msgspec.json.encode
    for name in page.__struct_fields__:
        value = getattr(page, name)
        pieces.append(b"%s%s:" % (b"," if pieces else b"{", encode(name)))
        if not isinstance(value, list):
            pieces.append(encode(value))
            continue
        rows = [encode(some)[1:-1] async for some in in_slices(value, _ROWS_AT_ONCE)]
        pieces.append(b"[%s]" % b",".join(rows))
    return b"%s}" % b"".join(pieces)
