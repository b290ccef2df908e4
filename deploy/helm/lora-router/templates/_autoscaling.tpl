{{- /*
What autoscaling aims at, as JSON: requests, lag and cpu, as far as they are used. Fails if the values
do not fit together.
*/ -}}
{{- define "lora-router.targets" -}}
{{- $scaling := .Values.autoscaling -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) }}
{{- fail "autoscaling.minReplicas must not be above autoscaling.maxReplicas" }}
{{- end }}
{{- $used := dict -}}
{{- if ne $scaling.source "cpu" }}
{{- with $scaling.targets.requestsPerSecond }}{{ $_ := set $used "requests" . }}{{ end }}
{{- with $scaling.targets.loopLagSeconds }}{{ $_ := set $used "lag" . }}{{ end }}
{{- if not $used }}
{{- fail (printf "autoscaling.targets: set requestsPerSecond or loopLagSeconds, which autoscaling.source %q reads, or use source \"cpu\"" $scaling.source) }}
{{- end }}
{{- else if not $scaling.targets.cpu }}
{{- fail "autoscaling.targets.cpu: needed with autoscaling.source \"cpu\"" }}
{{- end }}
{{- with $scaling.targets.cpu }}{{ $_ := set $used "cpu" (toString .) }}{{ end }}
{{- if and (eq $scaling.source "keda") (not $scaling.keda.serverAddress) }}
{{- fail "autoscaling.keda.serverAddress: the URL of Prometheus is needed with autoscaling.source \"keda\"" }}
{{- end }}
{{- toJson $used -}}
{{- end }}

{{- /* A number of seconds or of requests, as a quantity. */ -}}
{{- define "lora-router.quantity" -}}
{{- if eq (floor .) (float64 .) -}}
{{ int64 . }}
{{- else -}}
{{ mulf . 1000 | ceil | int64 }}m
{{- end -}}
{{- end }}

{{- /* The labels that Prometheus has for the routers' series. */ -}}
{{- define "lora-router.series" -}}
namespace={{ .Release.Namespace | quote }},pod=~"{{ include "lora-router.fullname" . }}-[a-z0-9]+-[a-z0-9]+"
{{- end }}
