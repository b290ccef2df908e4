"""Makes discovery through Kubernetes from the settings. Importing it takes a second."""

from lora_router.config.settings import Settings
from lora_router.discovery.kubernetes import KubernetesOptions, KubernetesPods
from lora_router.discovery.kubernetes_api import Credentials
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
