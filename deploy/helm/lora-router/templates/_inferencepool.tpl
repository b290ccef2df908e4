{{- /* The InferencePool whose pods the router follows. Empty in other modes. */ -}}
{{- define "lora-router.inferencePool" -}}
{{- if eq .Values.gateway.mode "inferencepool" -}}
{{ .Values.gateway.inferencePool.name | default (include "lora-router.fullname" .) }}
{{- end -}}
{{- end }}

{{- define "lora-router.inferencePoolGroup" -}}
{{ .Values.settings.inference_pool_group | default "inference.networking.k8s.io" }}
{{- end }}

{{- define "lora-router.inferenceObjectiveGroup" -}}
{{ .Values.settings.inference_objective_group | default "inference.networking.x-k8s.io" }}
{{- end }}

{{- /* Refuses values that do not fit a pool. A pool selects pods and names a Service of its own namespace. */ -}}
{{- define "lora-router.checkInferencePool" -}}
{{- if and .Values.settings.grpc_tls_self_signed (include "lora-router.mesh" .) }}
{{- fail "settings.grpc_tls_self_signed: routers cannot verify each other's certificates. Set tls.secretName, or peering.enabled=false, or let a Valkey or Redis carry what the routers say (peering.redis)" }}
{{- end }}
{{- if include "lora-router.inferencePool" . -}}
{{- $pool := .Values.gateway.inferencePool -}}
{{- if eq .Values.discovery.scope "cluster" }}
{{- fail "discovery.scope: \"cluster\" is not possible with gateway.mode \"inferencepool\": a pool has the pods of its own namespace" }}
{{- end }}
{{- if ne (include "lora-router.namespaces" .) (list .Release.Namespace | toJson) }}
{{- fail "discovery.namespaces: not with gateway.mode \"inferencepool\": a pool has the pods of its own namespace, which is the namespace of the release" }}
{{- end }}
{{- range list "endpoints" "kubernetes_namespaces" "kubernetes_selector" "kubernetes_port" "kubernetes_port_name" }}
{{- if not (kindIs "invalid" (index $.Values.settings .)) }}
{{- fail (printf "settings.%s: not with gateway.mode \"inferencepool\": the pool says which pods there are" .) }}
{{- end }}
{{- end }}
{{- if $pool.create }}
{{- if not $pool.matchLabels }}
{{- fail "gateway.inferencePool.matchLabels: name the labels of your model servers' pods, or the InferencePool that exists in gateway.inferencePool.name, with create=false" }}
{{- end }}
{{- if ne (include "lora-router.inferencePoolGroup" .) "inference.networking.k8s.io" }}
{{- fail "settings.inference_pool_group: the chart creates an InferencePool of inference.networking.k8s.io. Create yours, and set gateway.inferencePool.create=false" }}
{{- end }}
{{- end }}
{{- end -}}
{{- end }}

{{- /* The ports of the model servers, as JSON. */ -}}
{{- define "lora-router.podPorts" -}}
{{- if include "lora-router.inferencePool" . -}}
{{ .Values.gateway.inferencePool.targetPorts | toJson }}
{{- else -}}
{{ list (int (.Values.settings.kubernetes_port | default .Values.discovery.port)) | toJson }}
{{- end -}}
{{- end }}
