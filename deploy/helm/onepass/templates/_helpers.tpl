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

{{- define "onepass.replicas" -}}
{{- .Values.replicas | default (eq .Values.storage.type "etcd" | ternary 2 1) -}}
{{- end -}}

{{- define "onepass.etcd" -}}
{{- with .Values.storage.etcd -}}
{{ empty .tlsSecret | ternary "etcd" "etcds" }}://{{ join "," .endpoints }}{{ with .prefix }}/{{ trimPrefix "/" . }}{{ end }}
{{- end -}}
{{- end -}}

{{- /* What no schema can say in a sentence. */ -}}
{{- define "onepass.check" -}}
{{- $sealed := or .Values.seal.secrets .Values.seal.kms.socket -}}
{{- $etcd := .Values.storage.etcd -}}
{{- if ne .Values.storage.type "etcd" -}}
{{- if gt (int (include "onepass.replicas" .)) 1 -}}
{{- fail "replicas: with SQLite there can be one, since its database is a file on one volume; for more, set storage.type=etcd" -}}
{{- end -}}
{{- else -}}
{{- if not $etcd.endpoints -}}
{{- fail "storage.etcd.endpoints: name at least one, as HOST:PORT" -}}
{{- end -}}
{{- if not $sealed -}}
{{- fail "seal: replicas that share an etcd need the same key to open what is in it: name a Secret in seal.secrets, or a plugin in seal.kms" -}}
{{- end -}}
{{- if and $etcd.clientCertificate (not $etcd.tlsSecret) -}}
{{- fail "storage.etcd.clientCertificate: name the Secret that holds it in storage.etcd.tlsSecret" -}}
{{- end -}}
{{- if and $etcd.user (not $etcd.passwordSecret.name) -}}
{{- fail "storage.etcd.user: name the Secret with its password in storage.etcd.passwordSecret" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "onepass.pod" -}}
{{- if eq .Values.storage.type "etcd" }}deployment/{{ include "onepass.name" . }}{{ else }}pod/{{ include "onepass.name" . }}-0{{ end -}}
{{- end -}}
