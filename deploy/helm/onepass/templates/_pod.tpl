{{- define "onepass.template" -}}
metadata:
  labels: {{- include "onepass.selector" . | nindent 4 }}
  {{- with .Values.podAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "onepass.name" . }}
  automountServiceAccountToken: {{ eq .Values.mode "extension" }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: 60
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: onepass
      image: "{{ .Values.image.repository }}:{{ .Values.image.tag }}"
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - up
        # Below the volume's root, so that it is ours alone.
        - --data-dir=/var/lib/onepass/data
        - --listen=0.0.0.0:6443
        - --audit-log-path=-
        - --name={{ include "onepass.serviceName" . }}
        {{- if eq .Values.storage.type "etcd" }}
        - {{ printf "--storage=%s" (include "onepass.etcd" .) | quote }}
        {{- with .Values.storage.etcd }}
        {{- if .tlsSecret }}
        - --etcd-cafile=/run/etcd/tls/ca.crt
        {{- if .clientCertificate }}
        - --etcd-certfile=/run/etcd/tls/tls.crt
        - --etcd-keyfile=/run/etcd/tls/tls.key
        {{- end }}
        {{- end }}
        {{- if .user }}
        - {{ printf "--etcd-user=%s" .user | quote }}
        - {{ printf "--etcd-password-file=/run/etcd/password/%s" .passwordSecret.key | quote }}
        {{- end }}
        {{- with .compactionInterval }}
        - {{ printf "--etcd-compaction-interval=%s" . | quote }}
        {{- end }}
        {{- end }}
        {{- end }}
        {{- range .Values.names }}
        - {{ printf "--name=%s" . | quote }}
        {{- end }}
        {{- range .Values.allowEndpointCIDRs }}
        - {{ printf "--allow-endpoint-cidr=%s" . | quote }}
        {{- end }}
        {{- with .Values.seal.kms.socket }}
        - {{ printf "--seal-key=unix:///run/kms/%s" . | quote }}
        {{- end }}
        {{- range $index, $_ := .Values.seal.secrets }}
        - --seal-key=env:ONEPASS_SEAL_KEY_{{ $index }}
        {{- end }}
        {{- if eq .Values.mode "extension" }}
        - --extension
        - --extension-listen=0.0.0.0:6444
        - --extension-passes={{ .Values.extension.passes }}
        {{- end }}
        {{- range .Values.extraArgs }}
        - {{ . | quote }}
        {{- end }}
      {{- with .Values.seal.secrets }}
      env:
        {{- range $index, $secret := . }}
        - name: ONEPASS_SEAL_KEY_{{ $index }}
          valueFrom:
            secretKeyRef: {{- toYaml $secret | nindent 14 }}
        {{- end }}
      {{- end }}
      ports:
        - name: gateway
          containerPort: 6443
        {{- if eq .Values.mode "extension" }}
        - name: aggregator
          containerPort: 6444
        {{- end }}
      startupProbe:
        httpGet: {path: /readyz, port: gateway, scheme: HTTPS}
        periodSeconds: 2
        timeoutSeconds: 5
        failureThreshold: 60
      readinessProbe:
        # Not of the storage: requests to members go on without it, and what needs it says so itself.
        httpGet: {path: "/readyz?exclude=storage", port: gateway, scheme: HTTPS}
        periodSeconds: 5
        timeoutSeconds: 5
      livenessProbe:
        # Of the process alone: a restart helps no database, and no member.
        httpGet: {path: /livez, port: gateway, scheme: HTTPS}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      {{- if eq .Values.storage.type "etcd" }}
      lifecycle:
        preStop:
          # Load balancers hear that this pod goes before it takes no more connections.
          exec: {command: [sleep, "10"]}
      {{- end }}
      resources: {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      volumeMounts:
        - name: data
          mountPath: /var/lib/onepass
        - name: tmp
          mountPath: /tmp
        {{- if .Values.seal.kms.socket }}
        - name: kms
          mountPath: /run/kms
        {{- end }}
        {{- if eq .Values.storage.type "etcd" }}
        {{- with .Values.storage.etcd }}
        {{- if .tlsSecret }}
        - {name: etcd-tls, mountPath: /run/etcd/tls, readOnly: true}
        {{- end }}
        {{- if .user }}
        - {name: etcd-password, mountPath: /run/etcd/password, readOnly: true}
        {{- end }}
        {{- end }}
        {{- end }}
  {{- with .Values.seal.kms.sidecar }}
  initContainers:
    # Always: it starts before the gateway, and stays beside it.
    - {{- toYaml (merge (dict "restartPolicy" "Always" "volumeMounts" (append (.volumeMounts | default list) (dict "name" "kms" "mountPath" "/run/kms"))) .) | nindent 6 }}
  {{- end }}
  volumes:
    {{- if eq .Values.storage.type "etcd" }}
    # Certificates, sockets and the log of this replica; what is to stay is in etcd.
    - name: data
      emptyDir: {}
    {{- with .Values.storage.etcd }}
    {{- if .tlsSecret }}
    - name: etcd-tls
      secret: {secretName: {{ .tlsSecret | quote }}, defaultMode: 0440}
    {{- end }}
    {{- if .user }}
    - name: etcd-password
      secret: {secretName: {{ .passwordSecret.name | quote }}, defaultMode: 0440}
    {{- end }}
    {{- end }}
    {{- end }}
    {{- if .Values.seal.kms.socket }}
    - name: kms
      {{- toYaml .Values.seal.kms.volume | nindent 6 }}
    {{- end }}
    - name: tmp
      emptyDir:
        medium: Memory
        sizeLimit: 64Mi
  {{- with .Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if eq .Values.storage.type "etcd" }}
  topologySpreadConstraints:
    {{- with .Values.topologySpreadConstraints }}
    {{- toYaml . | nindent 4 }}
    {{- else }}
    {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - topologyKey: {{ $key }}
      maxSkew: 1
      whenUnsatisfiable: ScheduleAnyway
      matchLabelKeys: [pod-template-hash]
      labelSelector:
        matchLabels: {{- include "onepass.selector" $ | nindent 10 }}
    {{- end }}
    {{- end }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
