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
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
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

{{- define "ddo.logArgs" -}}
- --log-format={{ .Values.log.format }}
- --log-level={{ .Values.log.level }}
{{- end -}}

{{- define "ddo.commonArgs" -}}
{{ include "ddo.logArgs" . }}
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

{{/* Where a component serves /metrics: at its health port in plain, or at a port of its own with authentication. */}}
{{- define "ddo.metricsPortName" -}}
{{- ternary "metrics" "health" .Values.metrics.authentication -}}
{{- end -}}

{{- define "ddo.controllerMetricsPort" -}}
{{- ternary 8443 8080 .Values.metrics.authentication -}}
{{- end -}}

{{- define "ddo.agentMetricsPort" -}}
{{- ternary 8444 8081 .Values.metrics.authentication -}}
{{- end -}}

{{/* Arguments, volume and mount of metrics with authentication; nothing without. */}}
{{- define "ddo.metricsArgs" -}}
{{- $values := .root.Values.metrics -}}
{{- if $values.authentication -}}
- --metrics-port={{ .port }}
{{- if $values.tls.secretName }}
- --metrics-certificate=/etc/directdownload-metrics
{{- end }}
{{- end }}
{{- end -}}

{{- define "ddo.metricsMount" -}}
{{- if and .Values.metrics.authentication .Values.metrics.tls.secretName -}}
- name: metrics-certificate
  mountPath: /etc/directdownload-metrics
  readOnly: true
{{- end }}
{{- end -}}

{{- define "ddo.metricsVolume" -}}
{{- if and .Values.metrics.authentication .Values.metrics.tls.secretName -}}
- name: metrics-certificate
  secret: {secretName: {{ .Values.metrics.tls.secretName | quote }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{/* User and group of the peer server. Agent and opener are in the group: root without capabilities can give files to a
     group that it is in, and to nobody else. */}}
{{- define "ddo.peerGroup" -}}
65532
{{- end -}}

{{/* The Secret with the token that Prometheus shows. */}}
{{- define "ddo.metricsTokenSecret" -}}
{{- default (printf "%s-metrics-reader" (include "ddo.fullname" .)) .Values.metrics.tokenSecret.name -}}
{{- end -}}

{{/* Whether the chart makes that Secret. */}}
{{- define "ddo.makesMetricsToken" -}}
{{- $monitors := or .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled -}}
{{- if and .Values.metrics.authentication $monitors (not .Values.metrics.tokenSecret.name) }}yes{{ end -}}
{{- end -}}

{{/* An endpoint of a ServiceMonitor or PodMonitor: what both have in common. */}}
{{- define "ddo.metricsEndpoint" -}}
{{- $metrics := .root.Values.metrics -}}
port: {{ .port }}
path: /metrics
{{- with .monitor.interval }}
interval: {{ . }}
{{- end }}
{{- with .monitor.scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- if $metrics.authentication }}
scheme: https
tlsConfig:
  {{- if $metrics.tls.secretName }}
  serverName: {{ default (printf "%s-metrics.%s.svc" (include "ddo.fullname" .root) .root.Release.Namespace) $metrics.tls.serverName }}
  {{- with $metrics.tls.caKey }}
  ca: {secret: {name: {{ $metrics.tls.secretName | quote }}, key: {{ . | quote }}}}
  {{- end }}
  {{- else }}
  # Self-signed, and made anew by each process: nothing to compare it with.
  insecureSkipVerify: true
  {{- end }}
authorization:
  type: Bearer
  credentials: {name: {{ include "ddo.metricsTokenSecret" .root | quote }}, key: {{ $metrics.tokenSecret.key | quote }}}
{{- else }}
scheme: http
{{- end }}
relabelings:
- sourceLabels: [__meta_kubernetes_pod_node_name]
  targetLabel: node
{{- with .monitor.relabelings }}
{{ toYaml . }}
{{- end }}
{{- with .monitor.metricRelabelings }}
metricRelabelings:
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Where a pod that needs no host runs: as the controller, but for what only several replicas need. */}}
{{- define "ddo.controllerPlace" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.controller.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.controller.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.controller.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What the Pod Security standard `restricted` asks of a pod, and of its container. */}}
{{- define "ddo.restrictedPod" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "ddo.restrictedContainer" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Annotations of what upgrades the definitions; the argument is the weight. */}}
{{- define "ddo.crdsHook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
helm.sh/hook-output-log-policy: hook-succeeded,hook-failed
{{- end -}}

{{/* Annotations of what looks for volumes; the arguments are the hook and the weight. */}}
{{- define "ddo.volumesHook" -}}
helm.sh/hook: {{ first . }}
helm.sh/hook-weight: {{ last . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
helm.sh/hook-output-log-policy: hook-failed
{{- end -}}

{{/* What a pod that talks to nobody but the API server may reach: that, and the cluster's DNS. */}}
{{- define "ddo.egressToApi" -}}
- ports:
  {{- range .Values.networkPolicy.apiServer.ports }}
  - {protocol: TCP, port: {{ . }}}
  {{- end }}
  {{- with .Values.networkPolicy.apiServer.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{ include "ddo.egressToDns" . }}
{{- end -}}

{{- define "ddo.egressToDns" -}}
- ports:
  {{- range .Values.networkPolicy.dns.ports }}
  - {protocol: UDP, port: {{ . }}}
  - {protocol: TCP, port: {{ . }}}
  {{- end }}
  {{- with .Values.networkPolicy.dns.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* Annotations of what `helm test` makes; the argument is the weight. */}}
{{- define "ddo.testHook" -}}
helm.sh/hook: test
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
helm.sh/hook-output-log-policy: hook-succeeded,hook-failed
{{- end -}}
