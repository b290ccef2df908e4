"""Answers ``/v1/models`` and ``/v1/models/NAME`` from what the fleet knows. No pod sees them.

The list is the union over the ready pods that the client's filter and the gateway's subset allow.
"""

from collections.abc import Callable

from msgspec import Struct

from lora_router.clock import Clock
from lora_router.extproc import answers
from lora_router.extproc.errors import (
    ErrorAnswer,
    busy_list_answer,
    query_answer,
    refusal_answer,
    unread_list_answer,
)
from lora_router.extproc.model_documents import (
    PageQuery,
    QueryError,
    anthropic_model,
    anthropic_page,
    openai_model,
    openai_page,
    read_page_query,
)
from lora_router.extproc.model_lists import Listing, ModelLists, Waiting
from lora_router.fleet.catalog import Catalog
from lora_router.fleet.pod_state import PodState
from lora_router.routing.director import Director
from lora_router.routing.refusal import Refused


class ModelsRequest(Struct, frozen=True):
    """A request for the list or for one model."""

    name: str
    """Empty: the list."""
    query: str
    """The query of the path."""
    anthropic: bool
    """Whether the client expects Anthropic's shape."""
    pod_filter: str | None = None
    subset: frozenset[str] | None = None


class ModelsAnswers:
    """Answers questions about the models of a fleet."""

    def __init__(self, director: Director, clock: Clock) -> None:
        """Create it without lists.

        Args:
            director: Has the fleet, and narrows it by filter and subset.
            clock: The clock of the event loop.
        """
        self._fleet = director.fleet
        self._finder = director.reception.finder
        self._names = director.names
        self._lists = ModelLists(clock, _message)

    def answer(
        self, asked: ModelsRequest, on_answer: Callable[[bytes | ErrorAnswer], None]
    ) -> bytes | ErrorAnswer | Waiting:
        """Answer a request.

        Args:
            asked: The request.
            on_answer: Called once, later, if the answer is ``Waiting`` and it is not cancelled.

        Returns:
            The answer to Envoy, or an error for the client.
        """
        if asked.name:
            return self._one(asked)
        try:
            query = read_page_query(asked.query, anthropic=asked.anthropic)
        except QueryError as error:
            return query_answer(error.param, str(error))
        catalogs = self._catalogs(asked)
        if isinstance(catalogs, ErrorAnswer):
            return catalogs

        def made(listing: Listing | None) -> None:
            on_answer(_page(query, listing, anthropic=asked.anthropic))

        found = self._lists.find(catalogs, made, whole=not asked.anthropic and query.is_whole)
        return (
            found if isinstance(found, Waiting) else _page(query, found, anthropic=asked.anthropic)
        )

    def _one(self, asked: ModelsRequest) -> bytes | ErrorAnswer:
        serving = self._names.listed(asked.name)
        if not serving.pods:
            return self._loadable(asked)
        among = self._finder.among(serving.pods, asked.pod_filter, asked.subset)
        if isinstance(among, Refused):
            return refusal_answer(Refused(among.refusal, model=asked.name, detail=among.detail))
        if asked.anthropic:
            return _message(anthropic_model(asked.name))
        bases = (pod.adapters.get(serving.model) for pod in among)
        return _message(openai_model(asked.name, next(filter(None, bases), None)))

    def _loadable(self, asked: ModelsRequest) -> bytes | ErrorAnswer:
        """Answer about a model that no pod serves: an adapter may be loaded when it is used."""
        base = self._names.loadable(asked.name)
        if base is None:
            return refusal_answer(self._finder.why_nobody_serves(asked.name))
        among = self._finder.among(base.pods, asked.pod_filter, asked.subset)
        if isinstance(among, Refused):
            return refusal_answer(Refused(among.refusal, model=asked.name, detail=among.detail))
        if asked.anthropic:
            return _message(anthropic_model(asked.name))
        return _message(openai_model(asked.name, base.model))

    def _catalogs(self, asked: ModelsRequest) -> frozenset[Catalog] | ErrorAnswer:
        """Return the catalogs whose models a client may use, or why there are none."""
        among = self._finder.among(self._fleet.ready(), asked.pod_filter, asked.subset)
        if isinstance(among, Refused):
            return refusal_answer(among)
        if not among:
            return refusal_answer(self._finder.why_nobody_serves(""))
        states = [state for state in among if isinstance(state, PodState)]
        catalogs = frozenset(state.catalog for state in states)
        if not any(catalogs) and not all(state.models_known for state in states):
            return unread_list_answer()
        return self._names.with_aliases(catalogs)


def _page(query: PageQuery, listing: Listing | None, *, anthropic: bool) -> bytes | ErrorAnswer:
    if listing is None:
        return busy_list_answer()
    if anthropic:
        return _message(anthropic_page(listing.models, query))
    if query.is_whole:
        return listing.message
    return _message(openai_page(listing.models, query))


def _message(document: bytes) -> bytes:
    """Return the answer to Envoy that contains a document."""
    headers = (("content-type", b"application/json"),)
    return answers.immediate(ErrorAnswer(200, "models", headers, document))
