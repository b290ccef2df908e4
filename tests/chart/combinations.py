"""Combinations of values. Each is rendered, and a real API server validates each object."""

COMBINATIONS: dict[str, dict[str, object]] = {
    "defaults": {},
    "one router": {"replicas": 1, "podDisruptionBudget": {"enabled": False}},
    "an image by digest": {
        "image": {"repository": "registry.test/lora-router", "digest": "sha256:" + "0" * 64},
        "imagePullSecrets": [{"name": "registry"}],
    },
    "an image by tag": {"image": {"tag": "1.2.3-rc.1", "pullPolicy": "Always"}},
    "names of its own": {
        "nameOverride": "picker",
        "fullnameOverride": "adapter-picker",
        "commonLabels": {"team": "inference"},
    },
    "settings": {
        "loraAffinityThreshold": 0.5,
        "settings": {
            "algorithm": "least-request",
            "grpc_port": 50100,
            "admin_port": 8100,
            "max_body_bytes": 16777216,
            "max_hold_seconds": 12.5,
            "inference_paths": ["/v2/chat"],
            "algorithm_options": {"price": "3"},
            "log_format": "json",
        },
    },
    "pods behind TLS, and a token for their metrics": {
        "podTls": {"enabled": True, "caConfigMapName": "pods-ca", "hostname": "pods.test"},
        "settings": {"pod_metrics_token_file": "/tokens/metrics"},
        "extraVolumes": [{"name": "tokens", "secret": {"secretName": "pods-token"}}],
        "extraVolumeMounts": [{"name": "tokens", "mountPath": "/tokens", "readOnly": True}],
    },
    "pods behind TLS, with a sidecar": {
        "podTls": {"enabled": True, "caConfigMapName": "pods-ca"},
        "gateway": {"mode": "sidecar"},
    },
    "pods behind TLS and Envoy Gateway": {
        "podTls": {"enabled": True, "hostname": "pods.test"},
        "gateway": {
            "mode": "envoy-gateway",
            "envoyGateway": {"backends": [{"name": "vllm", "port": 8000}]},
        },
    },
    "all namespaces": {"discovery": {"scope": "cluster"}},
    "two namespaces": {"discovery": {"namespaces": ["models", "more-models"]}},
    "a selector and a port": {
        "discovery": {
            "selector": "app in (vllm, sglang),tier!=test",
            "port": 30000,
            "portName": "openai",
        }
    },
    "a key for the pods": {"podApiKey": {"secretName": "vllm", "secretKey": "key"}},
    "environment": {
        "extraEnv": [
            {"name": "LORA_ROUTER_LOG_LEVEL", "value": "debug"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "extraEnvFrom": [{"configMapRef": {"name": "more", "optional": True}}],
    },
    "permissions from elsewhere": {
        "rbac": {"create": False},
        "serviceAccount": {"create": False, "name": "sees-pods"},
    },
    "an account with annotations": {
        "serviceAccount": {"name": "router", "annotations": {"example.test/role": "reader"}}
    },
    "scheduling": {
        "podAnnotations": {"example.test/a": "b"},
        "podLabels": {"sidecar.test/inject": "false"},
        "nodeSelector": {"pool": "gateway"},
        "tolerations": [{"key": "gateway", "operator": "Exists", "effect": "NoSchedule"}],
        "priorityClassName": "system-cluster-critical",
        "affinity": {
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "topologyKey": "kubernetes.io/hostname",
                        "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "lora-router"}},
                    }
                ]
            }
        },
        "topologySpreadConstraints": [
            {"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}
        ],
        "resources": {"requests": {"cpu": "1", "memory": "512Mi"}},
    },
    "autoscaling": {
        "autoscaling": {"enabled": True, "minReplicas": 3, "maxReplicas": 9},
        "podDisruptionBudget": {"maxUnavailable": "25%"},
    },
    "autoscaling by CPU": {
        "autoscaling": {"enabled": True, "source": "cpu", "targets": {"cpu": 1.5}, "behavior": None}
    },
    "autoscaling by other names": {
        "autoscaling": {
            "enabled": True,
            "targets": {"requestsPerSecond": 250.5, "loopLagSeconds": 0.05, "cpu": None},
            "customMetrics": {"requestsPerSecond": "router_rps", "loopLagSeconds": "router_lag"},
        }
    },
    "autoscaling with KEDA": {
        "autoscaling": {
            "enabled": True,
            "source": "keda",
            "keda": {
                "serverAddress": "http://prometheus.monitoring:9090",
                "authenticationName": "prometheus",
            },
        }
    },
    "a long drain": {"drain": {"delaySeconds": 0, "timeoutSeconds": 600}},
    "a network policy": {"networkPolicy": {"enabled": True}},
    "a narrow network policy": {
        "networkPolicy": {
            "enabled": True,
            "gatewayNamespaceLabels": {"kubernetes.io/metadata.name": "envoy-gateway-system"},
            "monitoringNamespaceLabels": {"monitoring": "true"},
            "apiServerPorts": [6443],
            "apiServerCidrs": ["192.0.2.10/32", "2001:db8::/64"],
            "podPorts": [8000, 9000],
            "extraEgress": [
                {
                    "to": [{"ipBlock": {"cidr": "198.51.100.0/24"}}],
                    "ports": [{"port": 8000, "protocol": "TCP"}],
                }
            ],
        },
        "gateway": {"mode": "sidecar"},
    },
    "monitoring": {
        "serviceMonitor": {"enabled": True, "interval": "30s", "labels": {"release": "prometheus"}},
        "prometheusRule": {
            "enabled": True,
            "labels": {"release": "prometheus"},
            "runbookUrl": "https://docs.test/runbook",
            "disabled": ["LoraRouterNoLeader"],
            "extraRules": [{"record": "requests:rate5m", "expr": "rate(requests_total[5m])"}],
        },
        "dashboards": {
            "enabled": True,
            "annotations": {"grafana_folder": "Inference"},
            "runbookUrl": "https://docs.test/runbook",
            "pageUrl": "https://router.test/",
        },
    },
    "one address family, and labels that the chart sets too": {
        "service": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]},
        "commonLabels": {"app.kubernetes.io/name": "theirs", "team": "inference"},
        "podLabels": {"team": "routers"},
    },
    "an Envoy beside it": {
        "gateway": {"mode": "sidecar", "sidecar": {"port": 8000, "image": "envoy.test/envoy:v1"}},
        "service": {
            "type": "LoadBalancer",
            "httpPort": 8888,
            "annotations": {"example.test/internal": "true"},
        },
    },
    "an InferencePool": {
        "gateway": {
            "mode": "inferencepool",
            "inferencePool": {"matchLabels": {"app": "vllm", "tier": ""}},
        },
        "networkPolicy": {"enabled": True},
    },
    "an InferencePool with ranks, a route and TLS": {
        "gateway": {
            "mode": "inferencepool",
            "inferencePool": {
                "name": "llama.v3",
                "matchLabels": {"model.aibrix.ai/name": "llama-3-8b"},
                "targetPorts": [8000, 8001, 8002, 8003],
                "appProtocol": "kubernetes.io/h2c",
                "failureMode": "FailClose",
                "gatewayName": "shared",
                "gatewayNamespace": "gateways",
                "listeners": ["http", "https"],
                "hostnames": ["llm.test"],
                "pathPrefixes": ["/v1", "/tokenize"],
            },
        },
        "tls": {"secretName": "router-tls"},
    },
    "an InferencePool from elsewhere": {
        "gateway": {
            "mode": "inferencepool",
            "inferencePool": {"create": False, "name": "llama", "gatewayName": "llm"},
        },
        "settings": {
            "inference_pool_group": "inference.networking.x-k8s.io",
            "inference_objective_group": "llm-d.ai",
        },
    },
    "routers that do not know of each other": {"peering": {"enabled": False}},
    "a key of one's own for the peers": {
        "peering": {"secretName": "routers", "secretKey": "key-of-routers"}
    },
    "adapters that are declared": {
        "adapters": {
            "list": [{"name": "sql", "base_model": "llama", "source": "/models/sql"}],
            "templates": [{"base_model": "llama", "names": "t-*", "source": "/models/t/{name}"}],
            "sources": ["/models"],
        }
    },
    "adapters of ModelAdapters": {
        "adapters": {
            "configMapName": "ours",
            "sources": ["/models", "org"],
            "modelAdapters": {"enabled": True, "createDefinition": True},
        },
        "discovery": {"namespaces": ["models", "more-models"]},
    },
    "adapters of ModelAdapters in all namespaces, loaded by the leader": {
        "adapters": {"sources": ["org"], "modelAdapters": {"enabled": True}},
        "discovery": {"scope": "cluster"},
        "replication": "lease",
    },
    "a list of peers": {"settings": {"peers": "a.test:50052,b.test:50052"}},
    "peers through a Redis": {
        "peering": {
            "redis": {
                "secretName": "redis",
                "secretKey": "address",
                "caConfigMapName": "redis-ca",
                "ports": [6380, 26379],
            }
        },
        "networkPolicy": {"enabled": True},
        "replicas": 40,
    },
    "one leader": {
        "replication": "lease",
        "replicas": 3,
        "settings": {"lease_duration_seconds": 4},
        "gateway": {
            "mode": "envoy-gateway",
            "envoyGateway": {"backends": [{"name": "vllm", "port": 8000}]},
        },
    },
    "workers": {
        "workers": 4,
        "replicas": 1,
        "peering": {"enabled": False},
        "resources": {"requests": {"cpu": "4"}, "limits": {"memory": "2Gi"}},
    },
    "routers with workers": {
        "workers": 2,
        "replicas": 15,
        "networkPolicy": {"enabled": True, "gatewayNamespaceLabels": {"team": "gateways"}},
    },
    "routers with workers and a Valkey": {
        "workers": 2,
        "replicas": 20,
        "peering": {"redis": {"secretName": "redis"}},
    },
    "workers behind Envoy Gateway": {
        "workers": 2,
        "gateway": {
            "mode": "envoy-gateway",
            "envoyGateway": {"backends": [{"name": "vllm", "port": 8000}]},
        },
    },
    "workers of one router behind Envoy Gateway, over TLS": {
        "workers": 2,
        "replicas": 1,
        "peering": {"enabled": False},
        "tls": {"secretName": "router-tls", "caConfigMapName": "ca"},
        "gateway": {
            "mode": "envoy-gateway",
            "envoyGateway": {"backends": [{"name": "vllm", "port": 8000}]},
        },
    },
    "as many workers as cores": {
        "workers": "auto",
        "replicas": 1,
        "peering": {"enabled": False},
        "resources": {"limits": {"cpu": "4", "memory": "2Gi"}},
    },
    "TLS": {"tls": {"secretName": "router-tls", "requireClientCertificate": True}},
    "a sidecar of its own size": {
        "gateway": {
            "mode": "sidecar",
            "sidecar": {"resources": {"limits": {"memory": "4Gi"}}, "maxHeapBytes": 3221225472},
        }
    },
    "Envoy Gateway": {
        "gateway": {
            "mode": "envoy-gateway",
            "messageTimeoutSeconds": 2.5,
            "envoyGateway": {"backends": [{"name": "vllm", "port": 8000}]},
        }
    },
    "Envoy Gateway, over TLS": {
        "gateway": {
            "mode": "envoy-gateway",
            "envoyGateway": {"backends": [{"name": "vllm", "port": 8000}], "failOpen": False},
        },
        "tls": {"secretName": "router-tls", "caConfigMapName": "ca", "hostname": "router.test"},
    },
    "Envoy Gateway, with a Gateway and a Service": {
        "discovery": {"selector": "model.aibrix.ai/name=llama,tier==gpu", "port": 8001},
        "gateway": {
            "mode": "envoy-gateway",
            "envoyGateway": {
                "createGateway": True,
                "createService": True,
                "gatewayName": "llm",
                "gatewayPort": 8080,
            },
        },
    },
    "Envoy Gateway, a Service in each of two namespaces": {
        "discovery": {"selector": "app=vllm", "namespaces": ["models", "more-models"]},
        "gateway": {"mode": "envoy-gateway", "envoyGateway": {"createService": True}},
    },
    "Envoy Gateway, several Services": {
        "discovery": {"namespaces": ["models", "more-models"]},
        "gateway": {
            "mode": "envoy-gateway",
            "envoyGateway": {
                "backends": [
                    {"name": "llama", "port": 8000, "model": "llama-3-8b"},
                    {"name": "qwen", "port": 80, "model": "Qwen_2.5"},
                    {
                        "name": "llama",
                        "namespace": "more-models",
                        "port": 8000,
                        "referenceGrant": True,
                    },
                ],
                "pathPrefixes": ["/v1", "/tokenize"],
            },
        },
        "settings": {"fallbacks": 3, "pool_header": "x-pool", "envoy_pod_idle_seconds": 0.5},
    },
    "Envoy Gateway, somebody else's Gateway": {
        "gateway": {
            "mode": "envoy-gateway",
            "envoyGateway": {
                "gatewayName": "shared",
                "gatewayNamespace": "gateways",
                "listeners": ["internal", "external"],
                "createClientTrafficPolicy": False,
                "backends": [{"name": "vllm", "port": 8000}],
                "hostnames": ["llm.example.test", "*.llm.example.test"],
                "pathPrefixes": ["/v1", "/tokenize"],
            },
        },
        "settings": {"target_pod_header": "x-pod", "destination_header": "x-endpoint"},
    },
    "Envoy Gateway, any address": {
        "gateway": {
            "mode": "envoy-gateway",
            "messageTimeoutSeconds": 2.5,
            "envoyGateway": {"destination": "original-dst", "listeners": ["internal", "external"]},
        },
        "settings": {"max_hold_seconds": 0, "envoy_pod_idle_seconds": 2.5},
    },
}
