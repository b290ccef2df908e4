"""Makes discovery through Kubernetes from the settings. Importing it takes a second."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from lora_router.adapters.adapter_state import AdapterStates
from lora_router.adapters.declarations import Declarations
from lora_router.adapters.declared import MAX_DECLARED, DeclaredAdapter
from lora_router.adapters.loader import Loader
from lora_router.adapters.sources import AllowedSources
from lora_router.adapters.status import why_blocked
from lora_router.config.settings import Settings
from lora_router.discovery.kubernetes import KubernetesOptions, KubernetesPods
from lora_router.discovery.kubernetes_api import Credentials
from lora_router.discovery.model_adapter_record import manager_of
from lora_router.discovery.model_adapter_store import KubernetesStatus
from lora_router.discovery.model_adapter_writer import StatusWriter
from lora_router.discovery.model_adapters import ModelAdapterOptions, ModelAdapters
from lora_router.discovery.model_rewrites import FollowedRewrites
from lora_router.discovery.objectives import Objectives
from lora_router.discovery.pod_ports import PortRules
from lora_router.discovery.pool_object import pool_name, pool_query
from lora_router.discovery.pool_pods import PoolPods
from lora_router.fleet.fleet import Fleet
from lora_router.routing.model_names import ModelNames
from lora_router.routing.priorities import Priorities
from lora_router.supervision import Supervisor
from lora_router.telemetry.metrics import Telemetry


def make_kubernetes_discovery(
    settings: Settings,
    fleet: Fleet,
    telemetry: Telemetry,
    supervisor: Supervisor,
    priorities: Priorities,
) -> KubernetesPods | PoolPods:
    """Return what finds the pods: an InferencePool, or labels.

    Args:
        settings: The settings.
        fleet: Receives the pods.
        telemetry: Counts events.
        supervisor: Runs the tasks.
        priorities: Receives the priorities of the pool's objectives.

    Raises:
        PoolNameError: The namespace of the InferencePool is unknown.
    """
    pool = None if settings.inference_pool is None else pool_name(settings.inference_pool)
    namespaces = settings.kubernetes_namespaces if pool is None else (pool[0],)
    credentials = Credentials(settings.kubernetes_kubeconfig, settings.kubernetes_context)
    pods = KubernetesPods(
        fleet,
        KubernetesOptions(
            namespaces=tuple(dict.fromkeys(namespaces)),
            selector=settings.kubernetes_selector,
            ports=PortRules(settings.kubernetes_port_name, settings.kubernetes_port),
            family=settings.kubernetes_ip_family,
            pages=settings.page_rules,
            credentials=credentials,
            watch_seconds=settings.kubernetes_watch_seconds,
        ),
        telemetry,
        supervisor,
    )
    telemetry.add_gauge(
        "lora_router_pods_age_seconds",
        "Seconds since the Kubernetes API server last confirmed the list of pods.",
        lambda: pods.age,
    )
    telemetry.add_gauge(
        "lora_router_unread_namespaces",
        "Namespaces that could not be read since the start. The router works without their pods.",
        lambda: len(pods.left_out),
    )
    if pool is None:
        return pods
    query = pool_query(*pool, settings.inference_pool_group)
    return PoolPods(
        pods,
        query,
        credentials,
        telemetry,
        supervisor,
        objectives=Objectives(
            query,
            settings.inference_objective_group,
            credentials,
            priorities.put,
            watch_seconds=settings.kubernetes_watch_seconds,
        ),
        watch_seconds=settings.kubernetes_watch_seconds,
    )


def make_followed_rewrites(
    settings: Settings, names: ModelNames, supervisor: Supervisor
) -> FollowedRewrites:
    """Return what follows the InferenceModelRewrites of the InferencePool.

    Raises:
        PoolNameError: The namespace of the InferencePool is unknown.
    """
    assert settings.inference_pool is not None  # noqa: S101 -- the settings require it
    return FollowedRewrites(
        *pool_name(settings.inference_pool),
        settings.inference_pool_group,
        names.replace_rewrites,
        Credentials(settings.kubernetes_kubeconfig, settings.kubernetes_context),
        supervisor,
        watch_seconds=settings.kubernetes_watch_seconds,
    )


@dataclass(frozen=True, slots=True)
class ModelAdapterParts:
    """What follows the ModelAdapters, and what writes their status."""

    resources: ModelAdapters
    writer: StatusWriter

    def start(self, supervisor: Supervisor) -> None:
        """Start both."""
        self.resources.start()
        self.writer.start(supervisor)

    def status(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows."""
        return self.resources.status() | self.writer.status()


def make_model_adapters(
    settings: Settings,
    declarations: Declarations,
    declare: Callable[[Sequence[DeclaredAdapter]], Awaitable[None]],
    allowed: AllowedSources,
    loader: Loader,
    supervisor: Supervisor,
) -> ModelAdapterParts:
    """Return what follows the ModelAdapters of the namespaces that have the pods.

    Args:
        settings: The settings.
        declarations: All adapters that are declared.
        declare: Uses those of the ModelAdapters.
        allowed: The sources from which pods may load.
        loader: Knows where adapters belong. Its router writes the statuses while it loads.
        supervisor: Runs the tasks.

    Raises:
        PoolNameError: The namespace of the InferencePool is unknown.
    """
    namespaces = settings.kubernetes_namespaces
    if settings.inference_pool is not None:
        namespaces = [pool_name(settings.inference_pool)[0]]
    credentials = Credentials(settings.kubernetes_kubeconfig, settings.kubernetes_context)
    manager = manager_of(settings.routers_name)
    resources = ModelAdapters(
        ModelAdapterOptions(
            tuple(dict.fromkeys(namespaces)),
            allowed,
            manager,
            credentials,
            settings.kubernetes_watch_seconds,
        ),
        declare,
        supervisor,
    )
    first_plan = loader.plan

    def may_write() -> bool:
        # Before the first plan, no adapter belongs anywhere.
        return loader.loads and loader.plan is not first_plan

    states = AdapterStates(
        loader.fleet,
        lambda name: loader.plan.by_name.get(name, ()),
        loader.failures.of_adapter,
        partial(why_blocked, loader),
    )
    writer = StatusWriter(
        resources,
        states,
        partial(KubernetesStatus.open, credentials, manager),
        may_write=may_write,
        in_use=partial(_in_use, declarations),
    )
    return ModelAdapterParts(resources, writer)


def _in_use(declarations: Declarations, adapter: DeclaredAdapter) -> DeclaredAdapter | str | None:
    """Return the adapter that is served for one that a resource declares, or why none is."""
    used = declarations.get(adapter.name)
    if used is None:
        if len(declarations) < MAX_DECLARED:
            return None  # It is declared soon.
        return f"more than {MAX_DECLARED} adapters are declared"
    if used.origin == adapter.origin:
        return used
    return f"{adapter.name!r} is declared already by {used.origin} as {used.name!r}"
