{{- define "cyroid.labels" -}}
app.kubernetes.io/name: cyroid-images
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* Of one part: (list $ "deployer"). */}}
{{- define "cyroid.selector" -}}
app.kubernetes.io/name: cyroid-images
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "cyroid.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- end }}

{{- /* Of a pod: nobody of these speaks with the cluster's API. */}}
{{- define "cyroid.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: 30
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "cyroid.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "cyroid.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{- /* Settings of every role, those of docker-compose.yml. */}}
{{- define "cyroid.settings" -}}
- { name: CYROID_KEY_PREFIX, value: {{ .Values.keyPrefix | quote }} }
- { name: CYROID_REDIS_URL_FILE, value: /run/cyroid/redis_url }
- { name: CYROID_REGISTRY_URL, value: "http://cyroid-registry:5000" }
- { name: CYROID_REGISTRY_ADDRESS, value: {{ .Values.registry.address | quote }} }
- { name: CYROID_REGISTRY_AUTH, value: token }
- { name: CYROID_OPERATIONS_LISTEN, value: "0.0.0.0:8071" }
- { name: CYROID_DRAIN_SECONDS, value: "20" }
- { name: CYROID_LOG_FORMAT, value: json }
{{- with .Values.otlpEndpoint }}
- { name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }} }
{{- end }}
{{- end }}

{{- /* The kubelet asks; only it and the scraper reach the port, see networkpolicy.yaml. */}}
{{- define "cyroid.probes" -}}
startupProbe: { httpGet: { path: /livez, port: operations }, periodSeconds: 2, failureThreshold: 60 }
livenessProbe: { httpGet: { path: /livez, port: operations }, periodSeconds: 10, timeoutSeconds: 10, failureThreshold: 3 }
readinessProbe: { httpGet: { path: /readyz, port: operations }, periodSeconds: 10, timeoutSeconds: 10, failureThreshold: 3 }
{{- end }}

{{- define "cyroid.services-secret" -}}
- name: secret
  secret:
    secretName: {{ .Values.existingSecret }}
    defaultMode: 0440
    items: [{ key: redis_url, path: redis_url }]
{{- end }}
