{{- /* Several routers: how they find each other, and which of them receive requests. */ -}}

{{- /* The headless Service of the routers, the permission to follow it, and the peers' Secret. */ -}}
{{- define "lora-router.peersName" -}}
{{ include "lora-router.fullname" . | trunc 57 | trimSuffix "-" }}-peers
{{- end }}

{{- /* "true" if a Valkey or Redis carries what the routers say, else empty. */ -}}
{{- define "lora-router.redis" -}}
{{- if and .Values.peering.enabled .Values.peering.redis.secretName -}}
true
{{- end -}}
{{- end }}

{{- /* "true" if the routers call each other, else empty. */ -}}
{{- define "lora-router.mesh" -}}
{{- if and .Values.peering.enabled (not .Values.peering.redis.secretName) -}}
true
{{- end -}}
{{- end }}

{{- /* "true" if the routers find each other through their Service, else empty. */ -}}
{{- define "lora-router.peerService" -}}
{{- if and (include "lora-router.mesh" .) (not .Values.settings.peers) -}}
true
{{- end -}}
{{- end }}

{{- /* "true" if one router receives the requests, else empty. */ -}}
{{- define "lora-router.lease" -}}
{{- if eq .Values.replication "lease" -}}
true
{{- end -}}
{{- end }}

{{- /* Selects the routers, in a NetworkPolicy. */ -}}
{{- define "lora-router.routersPeer" -}}
- podSelector:
    matchLabels:
      {{- include "lora-router.selectorLabels" . | nindent 6 }}
{{- end }}

{{- /* The settings that make routers act as one, as JSON. */ -}}
{{- define "lora-router.replicaSettings" -}}
{{- $ours := dict -}}
{{- if .Values.peering.enabled }}
{{- $_ := set $ours "peer_secret_file" "/etc/lora-router-peers/secret" }}
{{- end }}
{{- if include "lora-router.peerService" . }}
{{- $_ := set $ours "peer_service" (printf "%s/%s" .Release.Namespace (include "lora-router.peersName" .)) }}
{{- end }}
{{- if and .Values.tls.secretName (include "lora-router.mesh" .) }}
{{- $_ := set $ours "peer_tls_ca_file" "/etc/lora-router-tls/ca.crt" }}
{{- $_ := set $ours "peer_tls_server_name" (include "lora-router.tlsHostname" .) }}
{{- end }}
{{- if include "lora-router.redis" . }}
{{- /* Releases that use the same server are different fleets. */ -}}
{{- $_ := set $ours "peering_prefix" (printf "lora-router/%s/%s" .Release.Namespace (include "lora-router.fullname" .)) }}
{{- if .Values.peering.redis.caConfigMapName }}
{{- $_ := set $ours "peer_tls_ca_file" "/etc/lora-router-redis/ca.crt" }}
{{- end }}
{{- end }}
{{- if include "lora-router.lease" . }}
{{- $_ := set $ours "replication" "lease" }}
{{- $_ := set $ours "lease_name" (include "lora-router.fullname" .) }}
{{- $_ := set $ours "drain_delay_seconds" (int .Values.drain.delaySeconds) }}
{{- end }}
{{- if ne (toString .Values.workers) "1" }}
{{- $_ := set $ours "workers" .Values.workers }}
{{- end }}
{{- toJson $ours -}}
{{- end }}

{{- /* Fails if what is said about several routers does not fit together. */ -}}
{{- define "lora-router.checkReplicas" -}}
{{- $values := .Values -}}
{{- if and $values.peering.redis.secretName (not $values.peering.enabled) }}
{{- fail "peering.redis.secretName: needs peering.enabled" }}
{{- end }}
{{- if and $values.peering.redis.secretName $values.settings.peers }}
{{- fail "settings.peers: not with peering.redis.secretName, since the routers find each other through that server" }}
{{- end }}
{{- $most := $values.autoscaling.enabled | ternary $values.autoscaling.maxReplicas $values.replicas | int -}}
{{- $replicas := $values.autoscaling.enabled | ternary "autoscaling.maxReplicas" "replicas" -}}
{{- /* Each worker is a router among its peers, and a rollout has one pod more. */ -}}
{{- $each := eq (toString $values.workers) "auto" | ternary 1 $values.workers | int -}}
{{- $mostPods := sub (div (ternary 129 33 (eq (include "lora-router.redis" .) "true")) $each) 1 | int -}}
{{- if and $values.peering.enabled (gt $each 1) (gt $most $mostPods) }}
{{- fail (printf "workers: with %d workers in each pod, at most %d pods can be peers, and %s is %d: each worker is a router, and a rollout has one pod more" $each $mostPods $replicas $most) }}
{{- end }}
{{- if and (include "lora-router.mesh" .) (gt $most 32) }}
{{- fail (printf "%s: at most 32 routers can call each other, and this is %d. Let a Valkey or Redis carry what they say (peering.redis)" $replicas $most) }}
{{- end }}
{{- if and (include "lora-router.redis" .) (gt $most 128) }}
{{- fail (printf "%s: at most 128 routers can be peers, and this is %d" $replicas $most) }}
{{- end }}
{{- if ne (toString $values.workers) "1" }}
{{- if include "lora-router.lease" . }}
{{- fail "workers: not with replication \"lease\", where one process decides everything" }}
{{- end }}
{{- if eq ($values.settings.transport | default "") "grpcio" }}
{{- fail "workers: need settings.transport=builtin, since grpcio serves only connections that it accepted itself" }}
{{- end }}
{{- if and (eq (toString $values.workers) "auto") (not (dig "limits" "cpu" "" $values.resources)) }}
{{- fail "workers: \"auto\" needs resources.limits.cpu. Without a limit, each pod would start a worker for every core of its node" }}
{{- end }}
{{- end }}
{{- if include "lora-router.lease" . }}
{{- if not $values.peering.enabled }}
{{- fail "replication: \"lease\" needs peering.enabled, since the standby must know what the leader knows" }}
{{- end }}
{{- if $values.autoscaling.enabled }}
{{- fail "autoscaling.enabled: not with replication \"lease\", where one router receives all requests, however many there are" }}
{{- end }}
{{- if eq $values.gateway.mode "sidecar" }}
{{- fail "replication: \"lease\" is not possible with gateway.mode \"sidecar\", where each Envoy has a router of its own" }}
{{- end }}
{{- if and (eq $values.gateway.mode "envoy-gateway") (include "lora-router.tls" .) }}
{{- fail "replication: \"lease\" is not possible with gateway.mode \"envoy-gateway\" and TLS: Envoy Gateway's health checks, which find the leader, do not work over TLS" }}
{{- end }}
{{- end }}
{{- end }}
