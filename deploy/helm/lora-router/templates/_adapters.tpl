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
{{- include "lora-router.checkSources" . }}
{{- include "lora-router.checkNames" . }}
{{- include "lora-router.checkSelectors" . }}
{{- if and (include "lora-router.loadsAdapters" .) (not .Values.peering.enabled) (or .Values.autoscaling.enabled (gt (int .Values.replicas) 1)) }}
{{- fail "adapters: with several routers, loading needs peering.enabled, so that one of them loads and the others know what it loaded" }}
{{- end }}
{{- end }}

{{- /* The name in errors of an entry. Takes the root, and its index in the list and then the templates. */ -}}
{{- define "lora-router.adapterEntry" -}}
{{- $declared := (index . 0).Values.adapters.list -}}
{{- $index := index . 1 -}}
{{- if lt $index (len $declared) -}}
adapters.list: adapter {{ (index $declared $index).name | quote }}
{{- else -}}
adapters.templates: template {{ sub $index (len $declared) | add1 }}
{{- end -}}
{{- end }}

{{- /*
Fails if pods may not load a source: adapters/sources.py. Only adapters of the list need no prefix, and
only while there is none.
*/ -}}
{{- define "lora-router.checkSources" -}}
{{- $rules := (.Files.Get "files/adapters-rules.json" | fromJson).source -}}
{{- $sources := .Values.adapters.sources -}}
{{- $prefixes := list -}}
{{- range $sources }}
{{- if not (regexMatch $rules.pattern .) }}
{{- fail (printf "adapters.sources: %q: must be %s" . $rules.rule) }}
{{- end }}
{{- $prefixes = append $prefixes (include "lora-router.place" .) }}
{{- end }}
{{- range $index, $entry := $sources | empty | ternary list (concat .Values.adapters.list .Values.adapters.templates) }}
{{- $source := .source }}
{{- if not (regexMatch $rules.pattern $source) }}
{{- fail (printf "%s: source=%q: must be %s, because adapters.sources is set" (include "lora-router.adapterEntry" (list $ $index)) $source $rules.rule) }}
{{- end }}
{{- $place := include "lora-router.place" $source }}
{{- $allowed := false }}
{{- range $prefixes }}{{ if hasPrefix . $place }}{{ $allowed = true }}{{ end }}{{ end }}
{{- if not $allowed }}
{{- fail (printf "%s: source=%q: must begin with a prefix in adapters.sources: %s" (include "lora-router.adapterEntry" (list $ $index)) $source (join ", " $sources)) }}
{{- end }}
{{- end }}
{{- end }}

{{- /*
A source or a prefix as it is compared: the scheme and the host in lower case, without a usual port, and
one slash at the end. So what begins with a prefix begins with its segments.
*/ -}}
{{- define "lora-router.place" -}}
{{- $host := regexFind "^[A-Za-z][A-Za-z0-9+.-]*://[^/]*" . -}}
{{- $path := trimPrefix $host . -}}
{{- $host = lower $host -}}
{{- $host = hasPrefix "http://" $host | ternary (trimSuffix ":80" $host) $host -}}
{{- $host = hasPrefix "https://" $host | ternary (trimSuffix ":443" $host) $host -}}
{{ printf "%s%s" $host $path | trimSuffix "/" }}/
{{- end }}

{{- /* Fails if clients could mean two models by a name: discovery/adapters_list.py. */ -}}
{{- define "lora-router.checkNames" -}}
{{- $owners := dict -}}
{{- $bases := dict -}}
{{- range .Values.adapters.list }}{{ $_ := set $bases .base_model true }}{{ end }}
{{- range $adapter := .Values.adapters.list }}
{{- range $name := prepend ($adapter.aliases | default list) $adapter.name }}
{{- if and (eq $name $adapter.name) (eq (get $owners $name) $name) }}
{{- fail (printf "adapters.list: adapter %q: its name is declared twice, as a name or an alias" $name) }}
{{- end }}
{{- if hasKey $owners $name }}
{{- fail (printf "adapters.list: adapter %q: the name %q is that of the adapter %q too" $adapter.name $name (get $owners $name)) }}
{{- end }}
{{- if hasKey $bases $name }}
{{- fail (printf "adapters.list: adapter %q: %q is a base model; its name and aliases must be others, or requests for the base model would get the adapter" $adapter.name $name) }}
{{- end }}
{{- $_ := set $owners $name $adapter.name }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Fails if a label selector is none: routing/selector.py. */ -}}
{{- define "lora-router.checkSelectors" -}}
{{- $rules := (.Files.Get "files/adapters-rules.json" | fromJson).selector -}}
{{- range $index, $entry := concat .Values.adapters.list .Values.adapters.templates }}
{{- if kindIs "map" .pods }}
{{- $selector := .pods.selector | default "" }}
{{- if or (not (regexMatch $rules.pattern $selector)) (regexMatch $rules.forbidden $selector) }}
{{- fail (printf "%s: pods.selector=%q: must be %s" (include "lora-router.adapterEntry" (list $ $index)) $selector $rules.rule) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
