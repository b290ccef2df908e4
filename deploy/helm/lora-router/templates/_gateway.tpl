{{- define "lora-router.gatewayNamespace" -}}
{{ .Values.gateway.envoyGateway.gatewayNamespace | default .Release.Namespace }}
{{- end }}

{{- /* "true" if Envoy picks among the endpoints of the pods' Services, empty with original-dst. */ -}}
{{- define "lora-router.endpointOverride" -}}
{{- if eq .Values.gateway.envoyGateway.destination "endpoint-override" -}}
true
{{- end -}}
{{- end }}

{{- /* "true" if Envoy forwards requests while no router answers, else empty. */ -}}
{{- define "lora-router.failOpen" -}}
{{- $eg := .Values.gateway.envoyGateway -}}
{{- if kindIs "invalid" $eg.failOpen -}}
{{ include "lora-router.endpointOverride" . }}
{{- else if $eg.failOpen -}}
{{- if not (or (include "lora-router.endpointOverride" .) $eg.createClientTrafficPolicy) }}
{{- fail "gateway.envoyGateway.failOpen: with destination \"original-dst\", it needs createClientTrafficPolicy. Without it, a client could choose an address while no router answers" }}
{{- end -}}
true
{{- end -}}
{{- end }}

{{- /* The Service that the chart creates over the pods in a namespace. Takes root and namespace. */ -}}
{{- define "lora-router.podsService" -}}
{{ include "lora-router.nameIn" . | trunc 58 | trimSuffix "-" }}-pods
{{- end }}

{{- /* The labels in discovery.selector, as JSON. A Service cannot select by anything else. */ -}}
{{- define "lora-router.podLabels" -}}
{{- $labels := dict -}}
{{- range splitList "," (.Values.settings.kubernetes_selector | default .Values.discovery.selector) }}
{{- $term := regexReplaceAll "\\s" . "" -}}
{{- if not (regexMatch "^[^=!()]+==?[^=!()]+$" $term) }}
{{- fail (printf "discovery.selector: gateway.envoyGateway.createService needs labels with values, for example model.aibrix.ai/name=llama-3, because a Service cannot select by %q" .) }}
{{- end }}
{{- $parts := regexSplit "==?" $term 2 -}}
{{- $_ := set $labels (first $parts) (last $parts) -}}
{{- end }}
{{- toJson $labels -}}
{{- end }}

{{- /* The Services of the pods, as JSON: name, namespace, port, model ("": all of the namespace), grant. */ -}}
{{- define "lora-router.backends" -}}
{{- $eg := .Values.gateway.envoyGateway -}}
{{- $found := list -}}
{{- if $eg.createService }}
{{- if $eg.backends }}
{{- fail "gateway.envoyGateway.createService: not with backends. Name your Services in backends, or let the chart create one" }}
{{- end }}
{{- if eq .Values.discovery.scope "cluster" }}
{{- fail "gateway.envoyGateway.createService: not with discovery.scope \"cluster\", since a Service selects the pods of its own namespace. Name the namespaces in discovery.namespaces, or your Services in gateway.envoyGateway.backends" }}
{{- end }}
{{- range include "lora-router.namespaces" . | fromJsonArray }}
{{- $found = append $found (dict "name" (include "lora-router.podsService" (dict "root" $ "namespace" .)) "namespace" . "port" (int ($.Values.settings.kubernetes_port | default $.Values.discovery.port)) "model" "" "grant" (ne . $.Release.Namespace)) -}}
{{- end }}
{{- else if not $eg.backends }}
{{- fail "gateway.envoyGateway.backends: name the Services of your model servers, or let the chart create one with gateway.envoyGateway.createService" }}
{{- end }}
{{- range $eg.backends }}
{{- $namespace := .namespace | default $.Release.Namespace -}}
{{- if and (eq $.Values.discovery.scope "namespace") (not (has $namespace (include "lora-router.namespaces" $ | fromJsonArray))) }}
{{- fail (printf "gateway.envoyGateway.backends: Service %q is in namespace %q, whose pods the router does not see. Add it to discovery.namespaces" .name $namespace) }}
{{- end }}
{{- $grant := and (.referenceGrant | default false) (ne $namespace $.Release.Namespace) -}}
{{- $found = append $found (dict "name" .name "namespace" $namespace "port" (int .port) "model" (.model | default "") "grant" $grant) -}}
{{- end }}
{{- range $i, $one := $found }}
{{- range $j, $other := $found }}
{{- if and (lt $i $j) (eq $one.namespace $other.namespace) (or (eq $one.model $other.model) (not $one.model) (not $other.model)) }}
{{- fail (printf "gateway.envoyGateway.backends: Services %q and %q are both in namespace %q. Tell them apart by model, the value of the label model.aibrix.ai/name of their pods" $one.name $other.name $one.namespace) }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $found -}}
{{- end }}

{{- /* The header by which the HTTPRoute chooses among several Services. Empty with one Service. */ -}}
{{- define "lora-router.poolHeader" -}}
{{- if and (eq .Values.gateway.mode "envoy-gateway") (include "lora-router.endpointOverride" .) -}}
{{- if gt (len (include "lora-router.backends" . | fromJsonArray)) 1 -}}
{{ .Values.settings.pool_header | default "x-lora-router-pool" }}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* A circuit breaker that never opens. Envoy's default limits are 1,024. */ -}}
{{- define "lora-router.unbounded" -}}
maxConnections: 4294967295
maxPendingRequests: 4294967295
maxParallelRequests: 4294967295
maxParallelRetries: 4294967295
{{- end }}

{{- define "lora-router.fallbacks" -}}
{{- if hasKey .Values.settings "fallbacks" }}{{ int .Values.settings.fallbacks }}{{ else }}1{{ end -}}
{{- end }}

{{- define "lora-router.backendRef" -}}
- name: {{ .backend.name | quote }}
  {{- if ne .backend.namespace .release.Namespace }}
  namespace: {{ .backend.namespace | quote }}
  {{- end }}
  port: {{ .backend.port }}
{{- end }}
