{{- define "onepass.name" -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "onepass.selector" -}}
app.kubernetes.io/name: onepass
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "onepass.labels" -}}
{{ include "onepass.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "onepass.serviceName" -}}
{{ include "onepass.name" . }}.{{ .Release.Namespace }}.svc
{{- end -}}
