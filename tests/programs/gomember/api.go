package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"onepass.test/gomember/container"
	"onepass.test/gomember/identity"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
)

const (
	namespace     = "default"
	podName       = "demo"
	containerName = "main"
)

var discovery = metav1.APIResourceList{
	TypeMeta:     metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"},
	GroupVersion: "v1",
	APIResources: []metav1.APIResource{
		{Name: "pods", SingularName: "pod", Namespaced: true, Kind: "Pod", Verbs: metav1.Verbs{"get", "list", "watch"}, ShortNames: []string{"po"}},
		{Name: "pods/log", Namespaced: true, Kind: "Pod", Verbs: metav1.Verbs{"get"}},
		{Name: "pods/exec", Namespaced: true, Kind: "PodExecOptions", Verbs: metav1.Verbs{"create", "get"}},
		{Name: "pods/attach", Namespaced: true, Kind: "PodAttachOptions", Verbs: metav1.Verbs{"create", "get"}},
		{Name: "pods/portforward", Namespaced: true, Kind: "PodPortForwardOptions", Verbs: metav1.Verbs{"create", "get"}},
		{Name: "configmaps", SingularName: "configmap", Namespaced: true, Kind: "ConfigMap", Verbs: metav1.Verbs{"get"}, ShortNames: []string{"cm"}},
	},
}

// api is the little of a kube-apiserver that kubectl asks before and besides the streams. The config map "sized" is
// 2 KB on the wire, for measuring.
func api(pod *container.Container, streams *streams) http.Handler {
	started := metav1.NewTime(time.Now().Truncate(time.Second))
	mux := http.NewServeMux()
	fixed := func(path string, value any) {
		body, err := json.Marshal(value)
		if err != nil {
			panic(err) // a value of this file that is no JSON
		}
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { send(w, http.StatusOK, body) })
	}
	fixed("/version", version.Info{Major: "1", Minor: "37", GitVersion: "v1.37.2+gomember"})
	fixed("/api", metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}})
	fixed("/apis", metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: []metav1.APIGroup{}})
	fixed("/api/v1", discovery)
	fixed("/api/v1/namespaces/default/configmaps/sized", sized(2048))
	object := podObject(started)
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: []corev1.Pod{object}}
	for _, path := range []string{"/api/v1/pods", "/api/v1/namespaces/default/pods"} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { listOrWatch(w, r, &list) })
	}
	one := "/api/v1/namespaces/default/pods/" + podName
	fixed(one, object)
	mux.HandleFunc("GET "+one+"/log", func(w http.ResponseWriter, r *http.Request) { logs(w, r, pod) })
	mux.HandleFunc(one+"/exec", streams.exec)
	mux.HandleFunc(one+"/attach", streams.attach)
	mux.HandleFunc(one+"/portforward", streams.portForward)
	for _, path := range []string{"/livez", "/readyz", "/healthz"} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotFound, metav1.StatusReasonNotFound, "the server could not find the requested resource")
	})
	return mux
}

// authenticated turns requests without a good credential away, as a kube-apiserver without anonymous access does.
func authenticated(own *identity.Identity, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if own.Method(r) == "" {
			fail(w, http.StatusUnauthorized, metav1.StatusReasonUnauthorized, "Unauthorized")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func podObject(started metav1.Time) corev1.Pod {
	yes := true
	return corev1.Pod{
		TypeMeta:   metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: podName, UID: "11111111-1111-4111-8111-111111111111", ResourceVersion: "1", CreationTimestamp: started},
		Spec:       corev1.PodSpec{NodeName: "gomember", Containers: []corev1.Container{{Name: containerName, Image: "gomember", Stdin: true}}},
		Status: corev1.PodStatus{
			Phase:      corev1.PodRunning,
			StartTime:  &started,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
			ContainerStatuses: []corev1.ContainerStatus{{
				Name: containerName, Image: "gomember", Ready: true, Started: &yes,
				State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: started}},
			}},
		},
	}
}

// sized is a config map whose JSON is as many bytes long as asked.
func sized(bytes int) corev1.ConfigMap {
	object := corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{Kind: "ConfigMap", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "sized"},
		Data:       map[string]string{"filler": ""},
	}
	empty, err := json.Marshal(object)
	if err != nil {
		panic(err) // as in fixed
	}
	object.Data["filler"] = strings.Repeat("x", bytes-len(empty))
	return object
}

// listOrWatch answers a list, or the list as events on a stream that then stays open until the client goes.
func listOrWatch(w http.ResponseWriter, r *http.Request, list *corev1.PodList) {
	if watch, _ := strconv.ParseBool(r.FormValue("watch")); !watch {
		body, err := json.Marshal(list)
		if err != nil {
			fail(w, http.StatusInternalServerError, metav1.StatusReasonInternalError, err.Error())
			return
		}
		send(w, http.StatusOK, body)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	for _, object := range list.Items {
		if encoder.Encode(map[string]any{"type": "ADDED", "object": object}) != nil {
			return
		}
	}
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

func logs(w http.ResponseWriter, r *http.Request, pod *container.Container) {
	follow, _ := strconv.ParseBool(r.FormValue("follow"))
	w.Header().Set("Content-Type", "text/plain")
	flusher := http.NewResponseController(w)
	_ = pod.Logs(r.Context(), follow, func(chunk []byte) error {
		if _, err := w.Write(chunk); err != nil {
			return err
		}
		return flusher.Flush()
	})
}

func send(w http.ResponseWriter, code int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	_, _ = w.Write(body)
}

func fail(w http.ResponseWriter, code int, reason metav1.StatusReason, message string) {
	body, err := json.Marshal(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message,
	})
	if err != nil {
		panic(fmt.Sprintf("a Status that is no JSON: %v", err))
	}
	send(w, code, body)
}
