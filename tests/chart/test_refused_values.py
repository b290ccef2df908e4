"""Values that Helm refuses, and what it says."""

import pytest

from tests.chart.rendering import helm, render
from tests.chart.test_adapter_entries import ADAPTER
from tests.chart.test_inferencepool_values import pool_mode
from tests.chart.test_values import behind_envoy_gateway, with_mode


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"loraAffinityThreshold": 1.5}, "at '/loraAffinityThreshold': maximum: got 1.5, want 1"),
        ({"loraAffinityThreshold": "high"}, "at '/loraAffinityThreshold': got string"),
        ({"replica": 3}, "additional properties 'replica' not allowed"),
        ({"dashboard": {"enabled": True}}, "additional properties 'dashboard' not allowed"),
        ({"prometheusRule": {"rules": []}}, "at '/prometheusRule': additional properties 'rules'"),
        ({"prometheusRule": {"disabled": ["down"]}}, "at '/prometheusRule/disabled/0'"),
        ({"dashboards": {"runbookUrl": 'a"b'}}, "at '/dashboards/runbookUrl'"),
        (
            {"prometheusRule": {"enabled": True, "disabled": ["LoraRouterDwon"]}},
            'prometheusRule.disabled: there is no alert "LoraRouterDwon". The alerts are Lora',
        ),
        ({"nameOverride": "Foo"}, "at '/nameOverride'"),
        ({"commonLabels": {"team": "a b"}}, "at '/commonLabels/team'"),
        ({"podLabels": {"team": "-a"}}, "at '/podLabels/team'"),
        (
            {"networkPolicy": {"gatewayNamespaceLabels": {"team": "a b"}}},
            "at '/networkPolicy/gatewayNamespaceLabels/team'",
        ),
        ({"settings": {"admin_port": 50052}}, "settings.admin_port: 50052 is the gRPC port"),
        (
            with_mode("sidecar", sidecar={"port": 8080}),
            "gateway.sidecar.port: 8080 is a port of the router",
        ),
        (
            {**with_mode("sidecar"), "service": {"httpPort": 50052}},
            "service.httpPort: 50052 is another port of the Service",
        ),
        (
            {"settings": {"kubernetes_namespaces": []}},
            "settings.kubernetes_namespaces: it is empty",
        ),
        (
            {"discovery": {"scope": "cluster"}, "settings": {"kubernetes_namespaces": ["a"]}},
            'settings.kubernetes_namespaces: not with discovery.scope "cluster"',
        ),
        ({"service": {"ipFamilyPolicy": "Both"}}, "at '/service/ipFamilyPolicy': value must be"),
        ({"settings": {"log_level": 5}}, "at '/settings/log_level'"),
        ({"replicas": 1.5}, "at '/replicas': got number, want integer"),
        ({"settings": {"grpc_prt": 1}}, "at '/settings': additional properties 'grpc_prt'"),
        ({"settings": {"grpc_port": 0}}, "at '/settings/grpc_port': minimum: got 0, want 1"),
        ({"settings": {"log_level": "loud"}}, "at '/settings/log_level': value must be one of"),
        ({"settings": {"pod_api_key": "secret"}}, "additional properties 'pod_api_key'"),
        ({"settings": {"peer_service": "routers"}}, "additional properties 'peer_service'"),
        ({"settings": {"peer_secret_file": "/x"}}, "additional properties 'peer_secret_file'"),
        ({"settings": {"replication": "lease"}}, "additional properties 'replication'"),
        ({"settings": {"workers": 2}}, "additional properties 'workers'"),
        ({"settings": {"peering": "redis://a"}}, "additional properties 'peering'"),
        ({"replication": "leader"}, "at '/replication': value must be one of"),
        (
            {"replication": "lease", "peering": {"enabled": False}},
            'replication: "lease" needs peering.enabled',
        ),
        (
            {"replication": "lease", "autoscaling": {"enabled": True}},
            'autoscaling.enabled: not with replication "lease"',
        ),
        (
            {"replication": "lease", **with_mode("sidecar")},
            'replication: "lease" is not possible with gateway.mode "sidecar"',
        ),
        (
            {
                "replication": "lease",
                "tls": {"secretName": "router-tls", "caConfigMapName": "ca"},
                **behind_envoy_gateway(),
            },
            'replication: "lease" is not possible with gateway.mode "envoy-gateway" and TLS',
        ),
        ({"settings": {"adapters_file": "/x"}}, "additional properties 'adapters_file'"),
        ({"settings": {"adapter_sources": ["/x"]}}, "additional properties 'adapter_sources'"),
        (
            {"adapters": {"list": [ADAPTER], "configMapName": "ours"}},
            "adapters.configMapName: not with adapters.list or adapters.templates",
        ),
        ({"adapters": {"configMapName": "Bad_Name"}}, "at '/adapters/configMapName'"),
        (
            {"adapters": {"modelAdapters": {"enabled": True}}},
            "adapters.modelAdapters.enabled: needs adapters.sources",
        ),
        (
            {"adapters": {"modelAdapters": {"createDefinition": True}}},
            "adapters.modelAdapters.createDefinition: needs adapters.modelAdapters.enabled",
        ),
        (
            {"adapters": {"sources": ["/models"]}, "peering": {"enabled": False}},
            "adapters: with several routers, loading needs peering.enabled",
        ),
        (
            with_mode("inferencepool"),
            "gateway.inferencePool.matchLabels: name the labels of your model servers' pods",
        ),
        (
            {**pool_mode(), "discovery": {"scope": "cluster"}},
            'discovery.scope: "cluster" is not possible with gateway.mode "inferencepool"',
        ),
        (
            {**pool_mode(), "discovery": {"namespaces": ["models", "more-models"]}},
            'discovery.namespaces: not with gateway.mode "inferencepool"',
        ),
        (
            {**pool_mode(), "settings": {"kubernetes_port": 9000}},
            'settings.kubernetes_port: not with gateway.mode "inferencepool"',
        ),
        (
            {**pool_mode(), "settings": {"inference_pool_group": "inference.networking.x-k8s.io"}},
            "set gateway.inferencePool.create=false",
        ),
        (
            {"settings": {"grpc_tls_self_signed": True}},
            "settings.grpc_tls_self_signed: routers cannot verify each other's certificates",
        ),
        ({"settings": {"inference_pool": "a"}}, "additional properties 'inference_pool'"),
        (
            pool_mode(targetPorts=list(range(8000, 8009))),
            "at '/gateway/inferencePool/targetPorts': maxItems: got 9, want 8",
        ),
        (pool_mode(failureMode="Open"), "at '/gateway/inferencePool/failureMode'"),
        ({"podTls": {"hostname": "pods.test"}}, "podTls: caConfigMapName and hostname need"),
        (
            {"podTls": {"enabled": True}, **with_mode("sidecar")},
            'podTls.caConfigMapName: needed with gateway.mode "sidecar"',
        ),
        (
            {"podTls": {"enabled": True}, **behind_envoy_gateway()},
            'podTls.hostname: needed with gateway.mode "envoy-gateway"',
        ),
        (
            {
                "podTls": {"enabled": True, "hostname": "pods.test"},
                **behind_envoy_gateway(destination="original-dst"),
            },
            'podTls.enabled: not with gateway.envoyGateway.destination "original-dst"',
        ),
        ({"workers": 0}, "at '/workers'"),
        ({"workers": "many"}, "at '/workers'"),
        ({"workers": 2, "replication": "lease"}, 'workers: not with replication "lease"'),
        (
            {"workers": 4, "replicas": 8},
            "workers: with 4 workers in each pod, at most 7 pods can be peers, and replicas is 8",
        ),
        (
            {"workers": 8, "replicas": 16, "peering": {"redis": {"secretName": "redis"}}},
            "workers: with 8 workers in each pod, at most 15 pods can be peers",
        ),
        (
            {"workers": 2, "settings": {"transport": "grpcio"}},
            "workers: need settings.transport=builtin",
        ),
        (
            {"workers": "auto"},
            'workers: "auto" needs resources.limits.cpu',
        ),
        ({"replicas": 33}, "replicas: at most 32 routers can call each other, and this is 33"),
        (
            {"replicas": 129, "peering": {"redis": {"secretName": "redis"}}},
            "replicas: at most 128 routers can be peers, and this is 129",
        ),
        (
            {"autoscaling": {"enabled": True, "maxReplicas": 40}},
            "autoscaling.maxReplicas: at most 32 routers can call each other",
        ),
        (
            {"peering": {"enabled": False, "redis": {"secretName": "redis"}}},
            "peering.redis.secretName: needs peering.enabled",
        ),
        (
            {"peering": {"redis": {"secretName": "redis"}}, "settings": {"peers": "a.test:1"}},
            "settings.peers: not with peering.redis.secretName",
        ),
        ({"peering": {"secretName": "A b"}}, "at '/peering/secretName'"),
        ({"peering": {"secretKey": "a key"}}, "at '/peering/secretKey'"),
        ({"networkPolicy": {"apiServerCidrs": ["api"]}}, "at '/networkPolicy/apiServerCidrs/0'"),
        ({"discovery": {"scope": "world"}}, "at '/discovery/scope': value must be one of"),
        ({"discovery": {"namespaces": ["A b"]}}, "at '/discovery/namespaces/0'"),
        ({"gateway": {"mode": "istio"}}, "at '/gateway/mode': value must be one of"),
        ({"gateway": {"envoyGateway": {"listeners": []}}}, "at '/gateway/envoyGateway/listeners'"),
        ({"image": {"digest": "latest"}}, "at '/image/digest'"),
        ({"drain": {"timeoutSeconds": -1}}, "at '/drain/timeoutSeconds': minimum"),
        ({"serviceMonitor": {"interval": "often"}}, "at '/serviceMonitor/interval'"),
        ({"extraEnv": [{"value": "nameless"}]}, "at '/extraEnv/0': missing property 'name'"),
        (
            {
                "gateway": {
                    "mode": "envoy-gateway",
                    "envoyGateway": {
                        "createGateway": True,
                        "listeners": ["a", "b"],
                        "backends": [{"name": "vllm", "port": 8000}],
                    },
                }
            },
            "createGateway makes one listener",
        ),
        ({"tls": {"secretName": "A b"}}, "at '/tls/secretName'"),
        (
            {"tls": {"secretName": "router-tls"}, "gateway": {"mode": "sidecar"}},
            'tls.secretName: not with gateway.mode "sidecar"',
        ),
        (
            {"tls": {"secretName": "router-tls"}, **behind_envoy_gateway()},
            "tls.caConfigMapName: needed",
        ),
        (with_mode("envoy-gateway"), "gateway.envoyGateway.backends: name the Services"),
        (
            behind_envoy_gateway(createService=True),
            "gateway.envoyGateway.createService: not with backends",
        ),
        (
            behind_envoy_gateway(backends=[], createService=True),
            "discovery.selector: gateway.envoyGateway.createService needs labels with values",
        ),
        (
            behind_envoy_gateway(backends=[], createService=True)
            | {"discovery": {"selector": "app=vllm", "scope": "cluster"}},
            'createService: not with discovery.scope "cluster"',
        ),
        (
            behind_envoy_gateway(backends=[{"name": "vllm", "namespace": "far", "port": 80}]),
            'Service "vllm" is in namespace "far", whose pods the router does not see',
        ),
        (
            behind_envoy_gateway(
                backends=[{"name": "a", "port": 80, "model": "m"}, {"name": "b", "port": 80}]
            ),
            'Services "a" and "b" are both in namespace "models". Tell them apart by model',
        ),
        (
            behind_envoy_gateway(backends=[{"name": "vllm"}]),
            "at '/gateway/envoyGateway/backends/0': missing property 'port'",
        ),
        (
            behind_envoy_gateway(
                backends=[
                    {"name": "a", "port": 80, "model": "a"},
                    {"name": "b", "port": 80, "model": "b"},
                ],
                pathPrefixes=[f"/{number}" for number in range(64)],
            ),
            "an HTTPRoute has room for 128 matches",
        ),
        (
            behind_envoy_gateway(
                destination="original-dst", failOpen=True, createClientTrafficPolicy=False
            ),
            'failOpen: with destination "original-dst", it needs createClientTrafficPolicy',
        ),
        (
            {"tls": {"requireClientCertificate": True}},
            "tls.requireClientCertificate: needs tls.secretName",
        ),
        (
            {"autoscaling": {"enabled": True, "minReplicas": 9}},
            "autoscaling.minReplicas must not be above autoscaling.maxReplicas",
        ),
        (
            {"autoscaling": {"targetCPUUtilizationPercentage": 60}},
            "additional properties 'targetCPUUtilizationPercentage' not allowed",
        ),
        ({"autoscaling": {"source": "prometheus"}}, "at '/autoscaling/source': value must be one"),
        ({"autoscaling": {"targets": {"requestsPerSecond": 0}}}, "exclusiveMinimum: got 0, want 0"),
        ({"autoscaling": {"targets": {"cpu": "70%"}}}, "at '/autoscaling/targets/cpu'"),
        (
            {
                "autoscaling": {
                    "enabled": True,
                    "targets": {"requestsPerSecond": None, "loopLagSeconds": None},
                }
            },
            "autoscaling.targets: set requestsPerSecond or loopLagSeconds",
        ),
        (
            {"autoscaling": {"enabled": True, "source": "cpu", "targets": {"cpu": None}}},
            'autoscaling.targets.cpu: needed with autoscaling.source "cpu"',
        ),
        (
            {"settings": {"admin_host": "127.0.0.1"}},
            'settings.admin_host: "127.0.0.1" is a loopback address',
        ),
        ({"settings": {"grpc_host": "::1"}}, 'settings.grpc_host: "::1" is a loopback address'),
        ({"settings": {"admin_host": "Localhost"}}, "is a loopback address"),
        (
            with_mode("sidecar", sidecar={"port": 9901}),
            "gateway.sidecar.port: 9901 is the port of Envoy's admin pages",
        ),
        (
            with_mode("sidecar") | {"settings": {"envoy_admin_port": 50052}},
            "settings.envoy_admin_port: 50052 is a port of the router",
        ),
        (
            with_mode("sidecar", sidecar={"maxHeapBytes": 2**30}),
            "gateway.sidecar.maxHeapBytes: 1073741824 must be below "
            "gateway.sidecar.resources.limits.memory (1Gi)",
        ),
        (
            with_mode("sidecar") | {"settings": {"envoy_max_heap_bytes": 2**40}},
            "gateway.sidecar.maxHeapBytes: 1099511627776 must be below",
        ),
        (
            {"discovery": {"selector": "a in ("}},
            'discovery.selector: "a in (": must be a Kubernetes label selector',
        ),
        (
            {"settings": {"kubernetes_selector": " "}},
            'settings.kubernetes_selector: " ": must be a Kubernetes label selector',
        ),
        (
            {"settings": {"outlier_max_ejection_seconds": 0.5}},
            "settings.outlier_max_ejection_seconds: 0.5 must be at least "
            "outlier_min_ejection_seconds, 1",
        ),
        (
            {"settings": {"model_header": "Routing-Strategy"}},
            'settings: two headers have the name "routing-strategy": all names must differ',
        ),
        (
            {"settings": {"tenant_header": "x-a", "priority_header": "x-a"}},
            'settings: two headers have the name "x-a": all names must differ',
        ),
        ({"settings": {"target_pod_header": "x y"}}, "at '/settings/target_pod_header'"),
        ({"settings": {"peers": "no-port"}}, "at '/settings/peers'"),
        ({"settings": {"admin_host": "[::]"}}, "at '/settings/admin_host'"),
        ({"settings": {"max_hold_seconds": 3596}}, "at '/settings/max_hold_seconds': maximum"),
        ({"settings": {"first_use_seconds": 3596}}, "at '/settings/first_use_seconds': maximum"),
        (
            {"gateway": {"messageTimeoutSeconds": 3601}},
            "at '/gateway/messageTimeoutSeconds': maximum",
        ),
        (
            behind_envoy_gateway() | {"settings": {"max_hold_seconds": 3595.5}},
            "at '/settings/max_hold_seconds': maximum",
        ),
        (
            with_mode(
                "envoy-gateway",
                messageTimeoutSeconds=6,
                envoyGateway={"backends": [{"name": "vllm", "port": 8000}]},
            )
            | {"settings": {"max_hold_seconds": 3595}},
            "gateway.messageTimeoutSeconds: with 6 s, and requests held for up to 3595 s "
            "(settings.max_hold_seconds, and first_use_seconds where adapters are loaded), Envoy "
            "would wait for 3601 s",
        ),
        (
            {"autoscaling": {"enabled": True, "source": "keda"}},
            "autoscaling.keda.serverAddress: the URL of Prometheus is needed",
        ),
    ],
)
def test_a_wrong_value_is_refused_and_named(values: dict[str, object], complaint: str) -> None:
    with pytest.raises(helm.HelmError) as refused:
        render(values)
    assert complaint in str(refused.value)
