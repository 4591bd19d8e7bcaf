{{/* The chart's name, as a label. */}}
{{- define "ddo.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Prefix of all names. At most 52 characters, so that `-controller` still fits; a cut name gets a hash, so that two
     long release names cannot meet. */}}
{{- define "ddo.fullname" -}}
{{- $name := include "ddo.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- $full = default $full .Values.fullnameOverride -}}
{{- if gt (len $full) 52 -}}
{{- printf "%s-%s" (trunc 43 $full | trimSuffix "-" | trimSuffix ".") (sha256sum $full | trunc 8) -}}
{{- else -}}
{{- $full -}}
{{- end -}}
{{- end -}}

{{- define "ddo.selectorLabels" -}}
app.kubernetes.io/name: direct-download-operator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "ddo.labels" -}}
{{ include "ddo.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end -}}

{{- define "ddo.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "ddo.podEnv" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
{{- end -}}

{{- define "ddo.commonArgs" -}}
- --log-format={{ .Values.log.format }}
- --log-level={{ .Values.log.level }}
{{- range .Values.agent.poolRoots }}
- {{ printf "--pool-root=%s" . | quote }}
{{- end }}
{{- end -}}

{{/* The proxy of downloads, as environment variables; empty without one. */}}
{{- define "ddo.proxyEnv" -}}
{{- $secret := .Values.proxy.secretName -}}
{{- range $name, $url := dict "HTTP_PROXY" .Values.proxy.http "HTTPS_PROXY" .Values.proxy.https }}
{{- if $url }}
- name: {{ $name }}
  value: {{ $url | quote }}
{{- else if $secret }}
- name: {{ $name }}
  valueFrom: {secretKeyRef: {name: {{ $secret | quote }}, key: url}}
{{- end }}
{{- end }}
{{- with .Values.proxy.noProxy }}
- name: NO_PROXY
  value: {{ . | quote }}
{{- end }}
{{- end -}}
