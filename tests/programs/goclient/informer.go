package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// follow tells what a shared informer sees of the namespace's service accounts: each event, then, when standard input
// ends, its store beside a list of the server.
func follow(r *run) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var mutex sync.Mutex
	out := json.NewEncoder(os.Stdout)
	tell := func(line map[string]any) {
		mutex.Lock()
		defer mutex.Unlock()
		_ = out.Encode(line)
	}
	event := func(kind string) func(any) {
		return func(object any) {
			if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = unknown.Obj
			}
			account := object.(*corev1.ServiceAccount)
			tell(map[string]any{"event": kind, "name": account.Name, "uid": account.UID, "turn": account.Labels["turn"], "version": account.ResourceVersion})
		}
	}
	shared := informers.NewSharedInformerFactoryWithOptions(r.typed, 0, informers.WithNamespace(r.namespace))
	accounts := shared.Core().V1().ServiceAccounts()
	registration, err := accounts.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: event("added"),
		UpdateFunc: func(old, object any) {
			if old.(*corev1.ServiceAccount).ResourceVersion != object.(*corev1.ServiceAccount).ResourceVersion {
				event("updated")(object) // an informer that listed anew hands on what did not change, too
			}
		},
		DeleteFunc: event("deleted"),
	})
	if err != nil {
		return err
	}
	shared.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return errors.New("never in sync")
	}
	tell(map[string]any{"event": "synced"})
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	store := map[string]string{}
	for _, each := range accounts.Informer().GetStore().List() {
		account := each.(*corev1.ServiceAccount)
		store[account.Name] = account.ResourceVersion
	}
	list, err := r.accounts().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	listed := map[string]string{}
	for _, each := range list.Items {
		listed[each.Name] = each.ResourceVersion
	}
	tell(map[string]any{"event": "end", "store": store, "listed": listed})
	return nil
}
