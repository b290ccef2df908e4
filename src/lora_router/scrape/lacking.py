"""Pods that lack a page: engines that the router cannot read, and those without a list of models.

Such a pod is used all the same. Its load is what this router and its peers have sent there, and its
base model is that of its label. This is logged once, and is no failure: nothing would change with
the next read. A pod whose page was read before is another case: there, the last snapshot stays in
use.
"""

from collections.abc import Callable

from lora_router.fleet.catalog import Catalog
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodState
from lora_router.scrape.page_reader import ScrapeError
from lora_router.scrape.pod_pages import PodPages
from lora_router.scrape.read_health import ReadHealth


async def read_load(
    state: PodState, pages: PodPages, health: ReadHealth, clock: Callable[[], float]
) -> PodMetrics:
    """Return the snapshot of a pod, which is empty if its page shows no load.

    Raises:
        ScrapeError: The page cannot be read.
    """
    why = "its page has no such metrics yet"
    try:
        metrics = await pages.metrics(state.pod, health)
    except ScrapeError as error:
        before = state.metrics
        if not error.lacks_page or (before is not None and before.shows_load):
            raise
        metrics, why = PodMetrics(scraped_at=clock()), str(error)
    health.lacks(None if metrics.shows_load else why)
    return metrics


async def read_list(state: PodState, pages: PodPages, health: ReadHealth) -> Catalog | None:
    """Return the models that a pod lists; ``None``: it has no list, and its label names its model.

    Raises:
        ScrapeError: The list cannot be read.
    """
    try:
        models = await pages.models(state.pod, health)
    except ScrapeError as error:
        if not error.lacks_page or state.models_known:
            raise
        if state.pod.base_model is None:
            raise ScrapeError(
                error.cause,
                f"{error}; name its models in the pods file, or its base model by the label "
                "model.aibrix.ai/name",
            ) from None
        health.lacks(str(error))
        return None
    health.lacks(None)
    return models
