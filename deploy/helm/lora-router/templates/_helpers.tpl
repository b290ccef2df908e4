{{- define "lora-router.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "lora-router.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- /* Names of releases may have dots, names of Services may not. */ -}}
{{- $release := .Release.Name | replace "." "-" -}}
{{- if contains (include "lora-router.name" .) $release }}
{{- $release | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" $release (include "lora-router.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- /*
The name of an object in some namespace. In another one than the release's, a release of the same name
may have objects too. Takes root and namespace.
*/ -}}
{{- define "lora-router.nameIn" -}}
{{- $name := include "lora-router.fullname" .root -}}
{{- if eq .namespace .root.Release.Namespace -}}
{{ $name }}
{{- else -}}
{{ printf "%s-%s" ($name | trunc 49 | trimSuffix "-") (.root.Release.Namespace | sha256sum | trunc 8) }}
{{- end -}}
{{- end }}

{{- define "lora-router.selectorLabels" -}}
app.kubernetes.io/name: {{ include "lora-router.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: router
{{- end }}

{{- /* The chart's own labels of every object. */ -}}
{{- define "lora-router.ownLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/name: {{ include "lora-router.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ regexReplaceAll "[^A-Za-z0-9]+$" (.Values.image.tag | default .Chart.AppVersion | trunc 63) "" | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- end }}

{{- /* The labels of an object that has no others. */ -}}
{{- define "lora-router.labels" -}}
{{ include "lora-router.labelsWith" (dict "root" .) }}
{{- end }}

{{- /*
The labels of an object, each once. Takes root, component (optional), and more: labels from values. The
chart's own labels take precedence, because selectors rely on them, and more over commonLabels.
*/ -}}
{{- define "lora-router.labelsWith" -}}
{{- $component := dict -}}
{{- with .component }}{{ $_ := set $component "app.kubernetes.io/component" . }}{{ end -}}
{{- $found := dict -}}
{{- range list .root.Values.commonLabels .more (include "lora-router.ownLabels" .root | fromYaml) $component }}
{{- range $key, $value := . }}{{ $_ := set $found $key $value }}{{ end }}
{{- end }}
{{- toYaml $found -}}
{{- end }}

{{- define "lora-router.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "lora-router.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "lora-router.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- /* The namespaces whose pods are watched, as JSON. Empty with scope "cluster". */ -}}
{{- define "lora-router.namespaces" -}}
{{- $set := .Values.settings.kubernetes_namespaces -}}
{{- if eq .Values.discovery.scope "cluster" -}}
{{- if $set }}{{ fail "settings.kubernetes_namespaces: not with discovery.scope \"cluster\"" }}{{ end -}}
[]
{{- else if and (hasKey .Values.settings "kubernetes_namespaces") (not $set) -}}
{{- fail "settings.kubernetes_namespaces: it is empty. Use discovery.scope \"cluster\" for all namespaces" }}
{{- else -}}
{{ $set | default .Values.discovery.namespaces | default (list .Release.Namespace) | uniq | toJson }}
{{- end -}}
{{- end }}

{{- /* The router's settings file: settings of the chart, overridden by .Values.settings. */ -}}
{{- define "lora-router.settings" -}}
{{- $ours := dict
  "admin_host" "::"
  "kubernetes_selector" .Values.discovery.selector
  "kubernetes_port" (int .Values.discovery.port)
  "kubernetes_port_name" .Values.discovery.portName
  "kubernetes_namespaces" (include "lora-router.namespaces" . | fromJsonArray)
  "drain_timeout_seconds" .Values.drain.timeoutSeconds
  "envoy_message_timeout_seconds" .Values.gateway.messageTimeoutSeconds
  "envoy_listen_port" (int .Values.gateway.sidecar.port)
-}}
{{- with include "lora-router.inferencePool" . }}
{{- $ours = omit $ours "kubernetes_selector" "kubernetes_port" "kubernetes_port_name" "kubernetes_namespaces" }}
{{- $_ := set $ours "inference_pool" (printf "%s/%s" $.Release.Namespace .) }}
{{- end }}
{{- with .Values.tls }}
{{- if .secretName }}
{{- $_ := set $ours "grpc_tls_cert_file" "/etc/lora-router-tls/tls.crt" }}
{{- $_ := set $ours "grpc_tls_key_file" "/etc/lora-router-tls/tls.key" }}
{{- if .requireClientCertificate }}
{{- $_ := set $ours "grpc_tls_client_ca_file" "/etc/lora-router-tls/ca.crt" }}
{{- end }}
{{- end }}
{{- end }}
{{- if .Values.podApiKey.secretName }}
{{- $_ := set $ours "pod_api_key_file" "/etc/lora-router-pod-key/key" }}
{{- end }}
{{- $ours = merge $ours (include "lora-router.podTlsSettings" . | fromJson) -}}
{{- $ours = merge $ours (include "lora-router.replicaSettings" . | fromJson) -}}
{{- $ours = merge $ours (include "lora-router.adapterSettings" . | fromJson) -}}
{{- with include "lora-router.poolHeader" . }}
{{- $_ := set $ours "pool_header" . }}
{{- end }}
{{- if eq .Values.gateway.mode "sidecar" }}
{{- $_ := set $ours "envoy_max_heap_bytes" (int64 .Values.gateway.sidecar.maxHeapBytes) }}
{{- end }}
{{- range $name, $value := .Values.settings }}{{ $_ := set $ours $name $value }}{{ end }}
{{- toYaml $ours }}
{{- end }}

{{- /* The settings for pods that serve over TLS, as JSON. Refuses what does not fit together. */ -}}
{{- define "lora-router.podTlsSettings" -}}
{{- $ours := dict -}}
{{- $sidecar := eq .Values.gateway.mode "sidecar" -}}
{{- if .Values.podTls.enabled }}
{{- $_ := set $ours "pod_scheme" "https" }}
{{- with .Values.podTls.hostname }}{{ $_ := set $ours "pod_tls_server_name" . }}{{ end }}
{{- if .Values.podTls.caConfigMapName }}
{{- $_ := set $ours "pod_tls_ca_file" "/etc/lora-router-pods/ca.crt" }}
{{- if $sidecar }}{{ $_ := set $ours "envoy_pod_ca_file" "/etc/lora-router-pods/ca.crt" }}{{ end }}
{{- else if $sidecar }}
{{- fail "podTls.caConfigMapName: needed with gateway.mode \"sidecar\", because Envoy must know who signed the certificates of the pods" }}
{{- end }}
{{- if eq .Values.gateway.mode "envoy-gateway" }}
{{- if not .Values.podTls.hostname }}
{{- fail "podTls.hostname: needed with gateway.mode \"envoy-gateway\", whose BackendTLSPolicy must name it" }}
{{- end }}
{{- if not (include "lora-router.endpointOverride" .) }}
{{- fail "podTls.enabled: not with gateway.envoyGateway.destination \"original-dst\", whose cluster has no TLS" }}
{{- end }}
{{- end }}
{{- else if or .Values.podTls.caConfigMapName .Values.podTls.hostname }}
{{- fail "podTls: caConfigMapName and hostname need podTls.enabled" }}
{{- end }}
{{- toJson $ours -}}
{{- end }}

{{- /* "true" if Envoy calls the router over TLS, else empty. */ -}}
{{- define "lora-router.tls" -}}
{{- if or .Values.tls.secretName .Values.settings.grpc_tls_cert_file .Values.settings.grpc_tls_self_signed -}}
true
{{- end -}}
{{- end }}

{{- /* The name in the router's certificate. */ -}}
{{- define "lora-router.tlsHostname" -}}
{{ .Values.tls.hostname | default (printf "%s.%s.svc" (include "lora-router.fullname" .) .Release.Namespace) }}
{{- end }}

{{- /*
Seconds before SIGTERM. None with a Lease, which its holder releases at SIGTERM. There the router waits
itself (drain_delay_seconds).
*/ -}}
{{- define "lora-router.preStopSeconds" -}}
{{ eq (include "lora-router.lease" .) "true" | ternary 0 .Values.drain.delaySeconds }}
{{- end }}

{{- /* Whole seconds: the preStop sleep, the drain, and 10 s to stop (app.py). */ -}}
{{- define "lora-router.gracePeriod" -}}
{{- $settings := include "lora-router.settings" . | fromYaml -}}
{{ add (include "lora-router.preStopSeconds" .) ($settings.drain_delay_seconds | default 0 | ceil) (ceil $settings.drain_timeout_seconds) 10 }}
{{- end }}

{{- define "lora-router.grpcPort" -}}
{{ .Values.settings.grpc_port | default 50052 | int }}
{{- end }}

{{- define "lora-router.adminPort" -}}
{{ .Values.settings.admin_port | default 8080 | int }}
{{- end }}

{{- define "lora-router.clientPort" -}}
{{ .Values.settings.envoy_listen_port | default .Values.gateway.sidecar.port | int }}
{{- end }}

{{- define "lora-router.envoyAdminPort" -}}
{{ .Values.settings.envoy_admin_port | default 9901 | int }}
{{- end }}

{{- /* Refuses ports that two listeners or two ports of the Service would share. Prints nothing. */ -}}
{{- define "lora-router.checkPorts" -}}
{{- $grpc := include "lora-router.grpcPort" . -}}
{{- $admin := include "lora-router.adminPort" . -}}
{{- if eq $grpc $admin }}{{ fail (printf "settings.admin_port: %s is the gRPC port" $admin) }}{{ end }}
{{- if eq .Values.gateway.mode "sidecar" }}
{{- $client := include "lora-router.clientPort" . -}}
{{- $envoyAdmin := include "lora-router.envoyAdminPort" . -}}
{{- $http := .Values.service.httpPort | int | toString -}}
{{- if has $client (list $grpc $admin) }}{{ fail (printf "gateway.sidecar.port: %s is a port of the router" $client) }}{{ end }}
{{- if eq $client $envoyAdmin }}{{ fail (printf "gateway.sidecar.port: %s is the port of Envoy's admin pages (settings.envoy_admin_port)" $client) }}{{ end }}
{{- if has $envoyAdmin (list $grpc $admin) }}{{ fail (printf "settings.envoy_admin_port: %s is a port of the router" $envoyAdmin) }}{{ end }}
{{- if has $http (list $grpc $admin) }}{{ fail (printf "service.httpPort: %s is another port of the Service" $http) }}{{ end }}
{{- end }}
{{- end }}

{{- /* Refuses addresses that the kubelet's probes, Envoy and Prometheus do not reach. Prints nothing. */ -}}
{{- define "lora-router.checkHosts" -}}
{{- range list "grpc_host" "admin_host" }}
{{- $host := index $.Values.settings . | default "::" }}
{{- if regexMatch "^(127\\.|::1$|::ffff:127\\.|localhost$)" (lower $host) }}
{{- fail (printf "settings.%s: %q is a loopback address, where the kubelet's probes cannot reach the router, so that its pods would be restarted for ever. Restrict who reaches the port with networkPolicy" . $host) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Refuses what is no label selector: routing/selector.py. Prints nothing. */ -}}
{{- define "lora-router.checkSelector" -}}
{{- $rules := (.Files.Get "files/adapters-rules.json" | fromJson).selector -}}
{{- range $place, $selector := dict "discovery.selector" .Values.discovery.selector "settings.kubernetes_selector" (.Values.settings.kubernetes_selector | default "") }}
{{- if or (not (regexMatch $rules.pattern $selector)) (regexMatch $rules.forbidden $selector) (regexMatch "^\\s+$" $selector) }}
{{- fail (printf "%s: %q: must be %s" $place $selector $rules.rule) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Refuses settings that the router refuses beside each other: config/agreement.py. Prints nothing. */ -}}
{{- define "lora-router.checkAgreement" -}}
{{- $settings := .Values.settings -}}
{{- $shortest := $settings.outlier_min_ejection_seconds | default 1 -}}
{{- $longest := $settings.outlier_max_ejection_seconds | default 60 -}}
{{- if lt (float64 $longest) (float64 $shortest) }}
{{- fail (printf "settings.outlier_max_ejection_seconds: %v must be at least outlier_min_ejection_seconds, %v" $longest $shortest) }}
{{- end }}
{{- $owners := dict "x-request-id" true -}}
{{- $defaults := dict "target_pod_header" "target-pod" "destination_header" "x-gateway-destination-endpoint" "strategy_header" "routing-strategy" "filter_header" "external-filter" "model_header" "model" "objective_header" "x-gateway-inference-objective" -}}
{{- range list "target_pod_header" "destination_header" "strategy_header" "filter_header" "model_header" "objective_header" "rewrite_sticky_header" "model_rewrite_header" "pool_header" "tenant_header" "priority_header" }}
{{- with index $settings . | default (get $defaults .) | lower }}
{{- $header := . }}
{{- if hasKey $owners $header }}
{{- fail (printf "settings: two headers have the name %q: all names must differ" $header) }}
{{- end }}
{{- $_ := set $owners $header true }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Refuses a heap of the sidecar for which its container has no memory. Prints nothing. */ -}}
{{- define "lora-router.checkHeap" -}}
{{- if eq .Values.gateway.mode "sidecar" }}
{{- $limit := dig "limits" "memory" "" .Values.gateway.sidecar.resources | toString -}}
{{- $heap := .Values.settings.envoy_max_heap_bytes | default .Values.gateway.sidecar.maxHeapBytes | int64 -}}
{{- with include "lora-router.bytes" $limit }}
{{- if ge $heap (int64 .) }}
{{- fail (printf "gateway.sidecar.maxHeapBytes: %d must be below gateway.sidecar.resources.limits.memory (%s), or Envoy is killed before it refuses requests" $heap $limit) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Refuses times for which Envoy's ext_proc filter would not wait. Prints nothing. */ -}}
{{- define "lora-router.checkTimeouts" -}}
{{- if and (eq .Values.gateway.mode "envoy-gateway") (include "lora-router.endpointOverride" .) }}
{{- $hold := include "lora-router.longestHold" . | float64 -}}
{{- $sum := addf $hold .Values.gateway.messageTimeoutSeconds -}}
{{- if gt $sum 3600.0 }}
{{- fail (printf "gateway.messageTimeoutSeconds: with %v s, and requests held for up to %v s (settings.max_hold_seconds, and first_use_seconds where adapters are loaded), Envoy would wait for %v s. It waits for at most 3600 s" .Values.gateway.messageTimeoutSeconds $hold $sum) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The bytes in a quantity of memory; empty: there is none, or it is in another notation. */ -}}
{{- define "lora-router.bytes" -}}
{{- if regexMatch "^[0-9]+(\\.[0-9]+)?([kMGT]|[KMGT]i)?$" . -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{ mulf (regexFind "^[0-9.]+" . | float64) (get $units (regexFind "[A-Za-z]*$" .)) | int64 }}
{{- end -}}
{{- end }}

{{- /*
MiB of memory that the processes of a router may need beyond the memory limit, else empty: 60 for each,
for several workers also for their parent, and the bodies of each.
*/ -}}
{{- define "lora-router.missingMemory" -}}
{{- $limit := include "lora-router.bytes" (dig "limits" "memory" "" .Values.resources | toString) -}}
{{- if and $limit (ne (toString .Values.workers) "auto") }}
{{- $workers := int .Values.workers -}}
{{- $bodies := div (.Values.settings.max_buffered_bytes | default 268435456 | int64) 1048576 -}}
{{- $needed := add (gt $workers 1 | ternary 60 0) (mul $workers (add 60 $bodies)) -}}
{{- if gt $needed (div (int64 $limit) 1048576) }}{{ $needed }}{{ end }}
{{- end }}
{{- end }}

{{- define "lora-router.targetHeader" -}}
{{ .Values.settings.target_pod_header | default "target-pod" }}
{{- end }}

{{- /* Envoy buffers slightly more than the router's body limit; see envoy/bootstrap.py. */ -}}
{{- define "lora-router.bufferBytes" -}}
{{- $body := .Values.settings.max_body_bytes | default 33554432 | int64 -}}
{{- $message := .Values.settings.grpc_max_message_size_bytes | default 67108864 | int64 -}}
{{ min (add $body 1048576) (sub $message 16384) }}
{{- end }}

{{- /*
A duration of the Gateway API. Takes seconds. Such a duration has no fractions, and no number of more than
five digits.
*/ -}}
{{- define "lora-router.duration" -}}
{{- $milliseconds := mulf . 1000 | ceil | int64 -}}
{{- $seconds := div $milliseconds 1000 -}}
{{- $rest := mod $milliseconds 1000 -}}
{{- if and $rest (lt $milliseconds 100000) -}}
{{ $milliseconds }}ms
{{- else -}}
{{- if gt $seconds 99999 }}{{ div $seconds 3600 }}h{{ $seconds = mod $seconds 3600 }}{{ end -}}
{{- if or $seconds (lt $milliseconds 1000) }}{{ $seconds }}s{{ end -}}
{{- if $rest }}{{ $rest }}ms{{ end -}}
{{- end -}}
{{- end }}

{{- /* How long an algorithm may hold a request, in seconds. */ -}}
{{- define "lora-router.longestHold" -}}
{{- $hold := 30.0 }}
{{- if hasKey .Values.settings "max_hold_seconds" }}{{ $hold = float64 .Values.settings.max_hold_seconds }}{{ end }}
{{- if include "lora-router.loadsAdapters" . }}
{{- $firstUse := 30.0 }}
{{- if hasKey .Values.settings "first_use_seconds" }}{{ $firstUse = float64 .Values.settings.first_use_seconds }}{{ end }}
{{- $hold = maxf $hold $firstUse }}
{{- end }}
{{- $hold -}}
{{- end }}

{{- /* Selects the pod of `helm test`, which connects to both ports. */ -}}
{{- define "lora-router.helmTestPeer" -}}
- podSelector:
    matchLabels:
      app.kubernetes.io/name: {{ include "lora-router.name" . | quote }}
      app.kubernetes.io/instance: {{ .Release.Name | quote }}
      app.kubernetes.io/component: test
{{- end }}

{{- define "lora-router.adminTokenName" -}}
{{ include "lora-router.fullname" . | trunc 57 | trimSuffix "-" }}-admin
{{- end }}

{{- /* Environment of every container that reads settings. */ -}}
{{- define "lora-router.env" -}}
env:
  - name: AIBRIX_LORA_AFFINITY_THRESHOLD
    value: {{ .Values.loraAffinityThreshold | quote }}
  {{- with .Values.settings.admin_port }}
  # Commands in the container ask this port. They do not read the settings file.
  - name: LORA_ROUTER_ADMIN_PORT
    value: {{ . | int | quote }}
  {{- end }}
  {{- if .Values.adminToken.enabled }}
  # Here and not in the settings file, so that commands in the container find the token too.
  - name: LORA_ROUTER_ADMIN_TOKEN_FILE
    value: /etc/lora-router-admin/token
  {{- end }}
  {{- if include "lora-router.redis" . }}
  - name: LORA_ROUTER_PEERING
    valueFrom:
      secretKeyRef:
        name: {{ .Values.peering.redis.secretName | quote }}
        key: {{ .Values.peering.redis.secretKey | quote }}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "lora-router.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
