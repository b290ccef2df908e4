"""The settings of how pods are read: their pages, keys, and TLS."""

from pydantic import BaseModel, Field

from lora_router.config import kinds
from lora_router.discovery.page_urls import MODELS_PATH, PageRules, Scheme


class PodSettings(BaseModel):
    """Settings of how pods are read."""

    pod_scheme: Scheme = Field(
        "http",
        description="How pods take requests and are read, unless the annotation "
        "lora-router/scheme or the pods file says it.",
    )
    pod_metrics_path: kinds.OptionalPagePath = Field(
        None,
        description="Path of a pod's metrics. Default: where its engine has them, which is "
        "/metrics for most (docs/engines.md).",
    )
    pod_models_path: kinds.PagePath = Field(
        MODELS_PATH, description="Path of a pod's list of models."
    )
    slot_probe: bool = Field(
        True,
        description="Whether the router sends a completion of one token to a vLLM pod that has "
        "served no request yet. vLLM states its number of adapter slots only after that.",
    )
    pod_api_key: kinds.ApiKey = Field(
        None,
        description="API key for reading /v1/models and for probes, sent as 'Authorization: "
        "Bearer'.",
    )
    pod_api_key_file: kinds.OwnSecret = Field(
        None,
        description="File with that API key, in place of pod_api_key. It is read again every 5 s.",
    )
    pod_metrics_token_file: kinds.OwnSecret = Field(
        None,
        description="File with the token for reading the metrics, sent as 'Authorization: Bearer'. "
        "It is read again every 5 s, so that tokens of service accounts may rotate.",
    )
    pod_tls_ca_file: kinds.OwnPem = Field(
        None,
        description="Certificate authorities for the pods' certificates. Default: those of the "
        "system. It is read again every 5 s.",
    )
    pod_tls_server_name: kinds.DnsName = Field(
        None,
        description="DNS name in the pods' certificates, also sent as SNI. Default: the IP address "
        "of the pod, which its certificate must then contain.",
    )
    pod_tls_skip_verify: bool = Field(
        False,
        description="Whether to accept any certificate of a pod. Anybody between the router and a "
        "pod can then read the keys and invent the pages. For tests only.",
    )
    pod_tls_cert_file: kinds.OwnPem = Field(
        None,
        description="Certificate that the router presents to pods (mutual TLS). It is read again "
        "every 5 s.",
    )
    pod_tls_key_file: kinds.OwnPem = Field(None, description="Private key of that certificate.")

    @property
    def page_rules(self) -> PageRules:
        """Where the pages of pods are that do not say it themselves."""
        return PageRules(self.pod_scheme, self.pod_metrics_path, self.pod_models_path)
