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

{{- /*
How many routers the Deployment states. With autoscaling it states how many there are, and none where
Helm does not ask the cluster. Without that, the upgrade that enables autoscaling would remove the number
of the release before, and Kubernetes would leave one router.
*/ -}}
{{- define "lora-router.replicas" -}}
{{- if not .Values.autoscaling.enabled -}}
{{ .Values.replicas }}
{{- else -}}
{{- with lookup "apps/v1" "Deployment" .Release.Namespace (include "lora-router.fullname" .) -}}
{{ max (int .spec.replicas) (int $.Values.autoscaling.minReplicas) }}
{{- end -}}
{{- end -}}
{{- end }}

{{- /*
The labels that Prometheus has for the routers' series. Kubernetes cuts what a pod's name begins with
after 58 characters, and adds five: the name of the Deployment, a hash of ten, and two hyphens.
*/ -}}
{{- define "lora-router.series" -}}
{{- $name := include "lora-router.fullname" . -}}
{{- $pods := printf "%s-[a-z0-9]+-[a-z0-9]+" $name -}}
{{- if gt (len $name) 46 }}{{ $pods = printf "%s-" $name | trunc 58 | printf "%s[a-z0-9]+" }}{{ end -}}
namespace={{ .Release.Namespace | quote }},pod=~"{{ $pods }}"
{{- end }}
