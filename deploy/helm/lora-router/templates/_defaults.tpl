{{- /*
Gives each value that is null its default, and removes settings that are null, whose defaults are the
router's. Helm removes a key that a user sets to null ("settings:" with nothing after it), and with it
everything below. Every template calls this first, because Helm does not say which one it renders first.
Prints nothing.
*/ -}}
{{- define "lora-router.fillValues" -}}
{{- if not .Values.nullsFilled }}
{{- range $path, $default := .Files.Get "files/defaults.yaml" | fromYaml }}
{{- $keys := splitList "." $path }}
{{- $place := $.Values }}
{{- range initial $keys }}
{{- if kindIs "invalid" (index $place .) }}{{ $_ := set $place . dict }}{{ end }}
{{- $place = index $place . }}
{{- end }}
{{- if kindIs "invalid" (index $place (last $keys)) }}{{ $_ := set $place (last $keys) $default }}{{ end }}
{{- end }}
{{- range $name, $value := .Values.settings }}
{{- if kindIs "invalid" $value }}{{ $_ := unset $.Values.settings $name }}{{ end }}
{{- end }}
{{- $_ := set .Values "nullsFilled" true }}
{{- end }}
{{- end }}
