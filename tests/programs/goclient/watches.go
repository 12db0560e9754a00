package main

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	toolswatch "k8s.io/client-go/tools/watch"
)

func unmarshal(text []byte, into any) error { return json.Unmarshal(text, into) }

// told is an event in a word or two.
func told(event watch.Event) string {
	if event.Type == watch.Error {
		text, _ := json.Marshal(event.Object)
		return "ERROR " + string(text)
	}
	object, err := meta.Accessor(event.Object)
	if err != nil {
		return fmt.Sprintf("%s %T", event.Type, event.Object)
	}
	if event.Type == watch.Bookmark {
		return "BOOKMARK " + object.GetAnnotations()[metav1.InitialEventsAnnotationKey]
	}
	return fmt.Sprintf("%s %s %s", event.Type, object.GetName(), object.GetLabels()["turn"])
}

// changes makes, changes and deletes a service account.
func changes(ctx context.Context, r *run, name string) error {
	if _, err := r.accounts().Create(ctx, account(name, map[string]string{"of": "watch", "turn": "0"}), metav1.CreateOptions{}); err != nil {
		return err
	}
	for _, turn := range []string{"1", "2"} {
		patch := fmt.Appendf(nil, `{"metadata":{"labels":{"turn":%q}}}`, turn)
		if _, err := r.accounts().Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return err
		}
	}
	return r.accounts().Delete(ctx, name, metav1.DeleteOptions{})
}

// events takes from a watch until one is the last that is waited for, or the watch ends.
func events(ctx context.Context, watcher watch.Interface, last string) ([]string, error) {
	defer watcher.Stop()
	got := []string{}
	for {
		select {
		case <-ctx.Done():
			return got, fmt.Errorf("waited for %q, got %q", last, got)
		case event, open := <-watcher.ResultChan():
			if !open {
				return append(got, "end"), nil
			}
			got = append(got, told(event))
			if got[len(got)-1] == last {
				return got, nil
			}
		}
	}
}

var watches = []step{
	{"watch: from a version on", func(ctx context.Context, r *run) (any, error) {
		list, err := r.accounts().List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		watcher, err := r.accounts().Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion, LabelSelector: "of=watch"})
		if err != nil {
			return nil, err
		}
		if err := changes(ctx, r, "watched"); err != nil {
			return nil, err
		}
		return events(ctx, watcher, "DELETED watched 2")
	}},
	{"watch: past changes", func(ctx context.Context, r *run) (any, error) {
		list, err := r.accounts().List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		if err := changes(ctx, r, "past"); err != nil {
			return nil, err
		}
		watcher, err := r.accounts().Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion, FieldSelector: "metadata.name=past"})
		if err != nil {
			return nil, err
		}
		return events(ctx, watcher, "DELETED past 2")
	}},
	{"watch: ends on time", func(ctx context.Context, r *run) (any, error) {
		second := int64(1)
		for {
			watcher, err := r.accounts().Watch(ctx, metav1.ListOptions{TimeoutSeconds: &second, FieldSelector: "metadata.name=applied"})
			if err != nil {
				return nil, err
			}
			// A server that is busy may be over with it before it has told the first event.
			if got, err := events(ctx, watcher, ""); err != nil || len(got) > 1 {
				return got, err
			}
		}
	}},
	{"watch: a version that is none", func(ctx context.Context, r *run) (any, error) {
		_, err := r.accounts().Watch(ctx, metav1.ListOptions{ResourceVersion: "nothing"})
		return nil, err
	}},
	{"watch: the list as a stream", func(ctx context.Context, r *run) (any, error) {
		yes := true
		watcher, err := r.accounts().Watch(ctx, metav1.ListOptions{
			SendInitialEvents: &yes, AllowWatchBookmarks: true, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
			FieldSelector: "metadata.name=applied",
		})
		if err != nil {
			return nil, err
		}
		return events(ctx, watcher, "BOOKMARK true")
	}},
	{"watch: metadata alone", func(ctx context.Context, r *run) (any, error) {
		watcher, err := r.metadata.Resource(serviceAccounts).Namespace(r.namespace).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=meta"})
		if err != nil {
			return nil, err
		}
		if err := changes(ctx, r, "meta"); err != nil {
			return nil, err
		}
		return events(ctx, watcher, "DELETED meta 2")
	}},
	{"watch: until a condition", func(ctx context.Context, r *run) (any, error) {
		lister := cache.NewListWatchFromClient(r.typed.CoreV1().RESTClient(), "serviceaccounts", r.namespace, fields.OneTermEqualSelector("metadata.name", "until"))
		failed := make(chan error, 1)
		listed := func(cache.Store) (bool, error) { // what came and went before would never be told
			go func() { failed <- changes(ctx, r, "until") }()
			return false, nil
		}
		event, err := toolswatch.UntilWithSync(ctx, lister, &corev1.ServiceAccount{}, listed, func(event watch.Event) (bool, error) {
			return event.Type == watch.Deleted, nil
		})
		if err != nil {
			return nil, err
		}
		return string(event.Type), <-failed
	}},
}
