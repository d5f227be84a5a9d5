{{- define "ttmem.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "ttmem.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := include "ttmem.name" . }}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* A name of ours with a suffix, which is what has to survive when it gets too long. (list context suffix) */}}
{{- define "ttmem.suffixed" -}}
{{- $suffix := index . 1 }}
{{- printf "%s-%s" (include "ttmem.fullname" (index . 0) | trunc (int (sub 62 (len $suffix))) | trimSuffix "-") $suffix }}
{{- end }}

{{- define "ttmem.selectorLabels" -}}
app.kubernetes.io/name: {{ include "ttmem.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* Labels of an object: (list context labels...). Later ones win, and ours over all of them: selectors depend on them. */}}
{{- define "ttmem.labels" -}}
{{- $context := first . }}
{{- $labels := deepCopy $context.Values.commonLabels }}
{{- range rest . }}{{ $labels = mergeOverwrite $labels (deepCopy .) }}{{ end }}
{{- $ours := dict
      "helm.sh/chart" (printf "%s-%s" $context.Chart.Name $context.Chart.Version | replace "+" "_" | trunc 63)
      "app.kubernetes.io/version" $context.Chart.AppVersion
      "app.kubernetes.io/managed-by" $context.Release.Service
      "app.kubernetes.io/part-of" "ttmem" }}
{{- $ours = mergeOverwrite $ours (include "ttmem.selectorLabels" $context | fromYaml) }}
{{- toYaml (mergeOverwrite $labels $ours) }}
{{- end }}

{{- /* The annotations of an object, with their key: (list context annotations...). */}}
{{- define "ttmem.annotations" -}}
{{- $annotations := deepCopy (first .).Values.commonAnnotations }}
{{- range rest . }}{{ $annotations = mergeOverwrite $annotations (deepCopy .) }}{{ end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "ttmem.serviceAccountName" -}}
{{- default (ternary (include "ttmem.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{- define "ttmem.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{- define "ttmem.configMapName" -}}
{{- default (include "ttmem.fullname" .) .Values.existingConfigMap }}
{{- end }}

{{- define "ttmem.scheme" -}}
{{- ternary "https" "http" .Values.webConfig.tls }}
{{- end }}

{{- /* ttmem.toml: plain keys first, then tables, as TOML wants them. JSON's scalars and lists of scalars are TOML's. */}}
{{- define "ttmem.toml" -}}
{{- $tables := dict }}
{{- range $key, $value := .Values.config }}
{{- if kindIs "invalid" $value }}
{{- else if or (kindIs "map" $value) (and (kindIs "slice" $value) $value (kindIs "map" (first $value))) }}
{{- $_ := set $tables $key $value }}
{{- else }}
{{ $key }} = {{ toRawJson $value }}
{{- end }}
{{- end }}
{{- range $key, $value := $tables }}
{{- range (kindIs "map" $value | ternary (list $value) $value) }}

{{ ternary (printf "[%s]" $key) (printf "[[%s]]" $key) (kindIs "map" $value) }}
{{- range $name, $setting := . }}
{{- if not (kindIs "invalid" $setting) }}
{{ $name }} = {{ toRawJson $setting }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The affinity with the label of Node Feature Discovery: terms are alternatives, so it goes into each of them. */}}
{{- define "ttmem.affinity" -}}
{{- $affinity := deepCopy .Values.affinity }}
{{- if .Values.nodeDiscovery.enabled }}
{{- $device := dict "key" .Values.nodeDiscovery.label "operator" "In" "values" (list "true") }}
{{- $node := get $affinity "nodeAffinity" | default dict }}
{{- $required := get $node "requiredDuringSchedulingIgnoredDuringExecution" | default dict }}
{{- $terms := list }}
{{- range (get $required "nodeSelectorTerms" | default (list dict)) }}
{{- $terms = append $terms (set . "matchExpressions" (append (get . "matchExpressions" | default list) $device)) }}
{{- end }}
{{- $_ := set $node "requiredDuringSchedulingIgnoredDuringExecution" (set $required "nodeSelectorTerms" $terms) }}
{{- $_ := set $affinity "nodeAffinity" $node }}
{{- end }}
{{- with $affinity }}{{ toYaml . }}{{ end }}
{{- end }}

{{- /* A probe: (list context path settings). Probes carry no password, so where one is asked for they only connect. */}}
{{- define "ttmem.probe" -}}
{{- $context := index . 0 }}
{{- $handler := dict "httpGet" (dict "path" (index . 1) "port" "http-metrics" "scheme" (include "ttmem.scheme" $context | upper)) }}
{{- if $context.Values.webConfig.auth }}
{{- $handler = dict "tcpSocket" (dict "port" "http-metrics") }}
{{- end }}
{{- $settings := index . 2 }}
{{- $own := false }}
{{- range list "exec" "grpc" "httpGet" "tcpSocket" }}{{ if hasKey $settings . }}{{ $own = true }}{{ end }}{{ end }}
{{- toYaml ($own | ternary $settings (mergeOverwrite $handler (deepCopy $settings))) }}
{{- end }}

{{- /* Whether there is a directory for the state that the daemon can write to. */}}
{{- define "ttmem.keepsState" -}}
{{- with .Values.state }}
{{- and .enabled (or (ne .volume "") (eq $.Values.runAs.mode "root") (eq .hostPathType "Directory")) }}
{{- end }}
{{- end }}

{{- /* What cannot be right, told before anything is made. */}}
{{- define "ttmem.check" -}}
{{- $values := .Values }}
{{- if and $values.serviceMonitor.enabled $values.podMonitor.enabled }}
{{- fail "serviceMonitor.enabled and podMonitor.enabled are both true: every daemon would be scraped twice. Turn one of them off." }}
{{- end }}
{{- if and $values.serviceMonitor.enabled (not $values.service.enabled) }}
{{- fail "serviceMonitor.enabled needs the service: set service.enabled to true, or use podMonitor.enabled." }}
{{- end }}
{{- if and $values.existingConfigMap $values.config }}
{{- fail "existingConfigMap and config are both set: put the settings into the ConfigMap, or let the chart make it from config." }}
{{- end }}
{{- if and (or $values.webConfig.tls $values.webConfig.auth) (not $values.webConfig.existingSecret) }}
{{- fail "webConfig.tls and webConfig.auth say what the web configuration does: name its secret in webConfig.existingSecret." }}
{{- end }}
{{- $volumes := list }}
{{- range $values.extraVolumes }}{{ $volumes = append $volumes .name }}{{ end }}
{{- if and $values.state.volume (not (has $values.state.volume $volumes)) }}
{{- fail (printf "state.volume: extraVolumes has no volume %s; add it there, or leave state.volume empty for a directory of the node." $values.state.volume) }}
{{- end }}
{{- if and (get $values.config "process_environment") (ne $values.runAs.mode "root") }}
{{- fail "config.process_environment reads other users' environments, which takes a capability that only root can be given: set runAs.mode to root." }}
{{- end }}
{{- end }}

{{- /* OpenTelemetry's variables, as a list. A variable can only name those before it. */}}
{{- define "ttmem.opentelemetry" -}}
{{- if .Values.opentelemetry.endpoint -}}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .Values.opentelemetry.endpoint | quote }}
- name: OTEL_EXPORTER_OTLP_PROTOCOL
  value: {{ .Values.opentelemetry.protocol | quote }}
{{- with .Values.opentelemetry.existingSecret }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom: { secretKeyRef: { name: {{ . | quote }}, key: {{ $.Values.opentelemetry.key | quote }} } }
{{- end }}
- name: K8S_NODE_NAME
  valueFrom: { fieldRef: { fieldPath: spec.nodeName } }
- name: K8S_NAMESPACE_NAME
  valueFrom: { fieldRef: { fieldPath: metadata.namespace } }
- name: K8S_POD_NAME
  valueFrom: { fieldRef: { fieldPath: metadata.name } }
- name: K8S_POD_UID
  valueFrom: { fieldRef: { fieldPath: metadata.uid } }
{{- /* In a pod the host's name is the pod's, and there is no machine id. */}}
{{- $attributes := list
      "host.name=$(K8S_NODE_NAME)"
      "k8s.node.name=$(K8S_NODE_NAME)"
      "k8s.namespace.name=$(K8S_NAMESPACE_NAME)"
      "k8s.pod.name=$(K8S_POD_NAME)"
      "k8s.pod.uid=$(K8S_POD_UID)"
      "k8s.container.name=ttmem"
      "service.instance.id=$(K8S_NAMESPACE_NAME).$(K8S_POD_NAME).ttmem" }}
{{- range $name, $value := .Values.opentelemetry.resourceAttributes }}
{{- $encoded := $value | replace "%" "%25" | replace "," "%2C" | replace "=" "%3D" }}
{{- $attributes = append $attributes (printf "%s=%s" $name $encoded) }}
{{- end }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: {{ join "," $attributes | quote }}
{{- end }}
{{- end }}
