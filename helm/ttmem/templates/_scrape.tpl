{{- /* The keys of `from` that are set, in YAML: (list from keys). false and 0 are set, "" and empty ones are not. */}}
{{- define "ttmem.given" -}}
{{- $from := first . }}
{{- $given := dict }}
{{- range index . 1 }}
{{- $value := get $from . }}
{{- if or $value (kindIs "bool" $value) (and (not (kindIs "invalid" $value)) (not (kindIs "string" $value)) (not (kindIs "map" $value)) (not (kindIs "slice" $value))) }}
{{- $_ := set $given . $value }}
{{- end }}
{{- end }}
{{- with $given }}{{ toYaml . }}{{ end }}
{{- end }}

{{- /* How one target is scraped, alike for both kinds of monitor: (list context monitor). */}}
{{- define "ttmem.endpoint" -}}
{{- $context := index . 0 }}
{{- $monitor := index . 1 }}
{{- $relabelings := list }}
{{- if $monitor.instanceFromNode }}
{{- range list "node" "instance" }}
{{- $relabelings = append $relabelings (dict "sourceLabels" (list "__meta_kubernetes_pod_node_name") "targetLabel" . "action" "replace") }}
{{- end }}
{{- end }}
{{- $relabelings = concat $relabelings $monitor.relabelings }}
port: http-metrics
path: {{ $monitor.path }}
scheme: {{ default (include "ttmem.scheme" $context) $monitor.scheme }}
{{- with $relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{ include "ttmem.given" (list $monitor (list
     "interval" "scrapeTimeout" "params" "tlsConfig" "basicAuth" "authorization" "oauth2" "proxyUrl" "noProxy" "proxyFromEnvironment"
     "proxyConnectHeader" "followRedirects" "enableHttp2" "honorLabels" "honorTimestamps" "trackTimestampsStaleness" "filterRunning"
     "metricRelabelings")) }}
{{- end }}

{{- /* What a monitor says beside that: (list context monitor). */}}
{{- define "ttmem.monitor" -}}
{{ include "ttmem.given" (list (index . 1) (list
     "jobLabel" "targetLabels" "podTargetLabels" "attachMetadata" "sampleLimit" "targetLimit" "labelLimit" "labelNameLengthLimit"
     "labelValueLengthLimit" "bodySizeLimit" "keepDroppedTargets" "scrapeProtocols" "fallbackScrapeProtocol" "scrapeClass"
     "scrapeNativeHistograms" "scrapeClassicHistograms" "convertClassicHistogramsToNHCB" "nativeHistogramBucketLimit"
     "nativeHistogramMinBucketFactor" "selectorMechanism" "serviceDiscoveryRole")) }}
selector:
  matchLabels:
    {{- include "ttmem.selectorLabels" (index . 0) | nindent 4 }}
    app.kubernetes.io/component: daemon
namespaceSelector:
  matchNames: [{{ (index . 0).Release.Namespace }}]
{{- end }}
