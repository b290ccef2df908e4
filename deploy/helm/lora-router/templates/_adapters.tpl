{{- /* Adapters that the routers load into the pods. */ -}}

{{- /* "true" if the chart has the file of adapters, else empty. */ -}}
{{- define "lora-router.ownAdapters" -}}
{{- if or .Values.adapters.list .Values.adapters.templates -}}
true
{{- end -}}
{{- end }}

{{- /* The ConfigMap with the file of adapters; empty: there is none. */ -}}
{{- define "lora-router.adaptersConfigMap" -}}
{{- if include "lora-router.ownAdapters" . -}}
{{ include "lora-router.fullname" . | trunc 54 | trimSuffix "-" }}-adapters
{{- else -}}
{{ .Values.adapters.configMapName }}
{{- end -}}
{{- end }}

{{- /* "true" if the routers load adapters, else empty. */ -}}
{{- define "lora-router.loadsAdapters" -}}
{{- if or (include "lora-router.adaptersConfigMap" .) .Values.adapters.modelAdapters.enabled .Values.adapters.sources -}}
true
{{- end -}}
{{- end }}

{{- /* "true" if routers hold a Lease that says which of them loads adapters, else empty. */ -}}
{{- define "lora-router.loaderLease" -}}
{{- if and (include "lora-router.loadsAdapters" .) .Values.peering.enabled (not (include "lora-router.lease" .)) -}}
true
{{- end -}}
{{- end }}

{{- /* The name of the router's Lease for that: replication/loader_lease.py. */ -}}
{{- define "lora-router.loaderLeaseName" -}}
{{ include "lora-router.fullname" . }}-loader
{{- end }}

{{- /* The permissions for ModelAdapters, in each namespace that has pods. */ -}}
{{- define "lora-router.modelAdapterRules" -}}
{{- if .Values.adapters.modelAdapters.enabled -}}
- apiGroups: [model.aibrix.ai]
  resources: [modeladapters]
  verbs: [list, watch]
- apiGroups: [model.aibrix.ai]
  resources: [modeladapters/status]
  verbs: [patch]
{{- end -}}
{{- end }}

{{- /* The settings of adapters, as JSON. */ -}}
{{- define "lora-router.adapterSettings" -}}
{{- $ours := dict -}}
{{- if include "lora-router.adaptersConfigMap" . }}
{{- $_ := set $ours "adapters_file" "/etc/lora-router-adapters/adapters.yaml" }}
{{- end }}
{{- if .Values.adapters.modelAdapters.enabled }}
{{- $_ := set $ours "model_adapters" true }}
{{- end }}
{{- with .Values.adapters.sources }}
{{- $_ := set $ours "adapter_sources" . }}
{{- end }}
{{- if include "lora-router.loadsAdapters" . }}
{{- /* The name of the Lease, and of who writes statuses. */ -}}
{{- $_ := set $ours "lease_name" (include "lora-router.fullname" .) }}
{{- end }}
{{- toJson $ours -}}
{{- end }}

{{- /* Fails if what is said about adapters does not fit together. */ -}}
{{- define "lora-router.checkAdapters" -}}
{{- $values := .Values.adapters -}}
{{- if and (include "lora-router.ownAdapters" .) $values.configMapName }}
{{- fail "adapters.configMapName: not with adapters.list or adapters.templates, from which the chart makes the ConfigMap" }}
{{- end }}
{{- if and $values.templates (not $values.sources) }}
{{- fail "adapters.templates: need adapters.sources, from where adapters may be loaded whose names clients choose" }}
{{- end }}
{{- if and $values.modelAdapters.enabled (not $values.sources) }}
{{- fail "adapters.modelAdapters.enabled: needs adapters.sources, from where those may load adapters who may create ModelAdapters" }}
{{- end }}
{{- if and $values.modelAdapters.createDefinition (not $values.modelAdapters.enabled) }}
{{- fail "adapters.modelAdapters.createDefinition: needs adapters.modelAdapters.enabled" }}
{{- end }}
{{- if and (include "lora-router.loadsAdapters" .) (not .Values.peering.enabled) (or .Values.autoscaling.enabled (gt (int .Values.replicas) 1)) }}
{{- fail "adapters: with several routers, loading needs peering.enabled, so that one of them loads and the others know what it loaded" }}
{{- end }}
{{- end }}
