"""Which pods to list and watch."""

from kubernetes.aio.client.api.core_v1_api import CoreV1Api

from lora_router.discovery.kubernetes_api import Call, KubernetesApi
from lora_router.discovery.object_watch import PAGE_LIMIT, ObjectQuery
from lora_router.discovery.pod_object import PodObject


def pod_query(
    namespace: str | None,
    selector: str,
    *,
    watch_seconds: int = 30,
    page_limit: int = PAGE_LIMIT,
) -> ObjectQuery[PodObject]:
    """Return the query of the pods with some labels.

    Args:
        namespace: Their namespace. ``None``: all namespaces.
        selector: A label selector. Empty: all pods.
        watch_seconds: Server-side timeout of a watch.
        page_limit: Pods of a page.
    """
    arguments = {"label_selector": selector or None}
    if namespace is None:
        return ObjectQuery(PodObject, _all, arguments, watch_seconds, page_limit)
    arguments["namespace"] = namespace
    return ObjectQuery(PodObject, _namespaced, arguments, watch_seconds, page_limit)


def _all(api: KubernetesApi) -> Call:
    return CoreV1Api(api.client).list_pod_for_all_namespaces_without_preload_content


def _namespaced(api: KubernetesApi) -> Call:
    return CoreV1Api(api.client).list_namespaced_pod_without_preload_content
