package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	authentication "k8s.io/api/authentication/v1"
	authorization "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

var discovery = []step{
	{"discovery: version", func(_ context.Context, r *run) (any, error) { return r.typed.Discovery().ServerVersion() }},
	{"discovery: groups and resources", func(_ context.Context, r *run) (any, error) {
		_, lists, err := r.typed.Discovery().ServerGroupsAndResources() // in the order of a map
		slices.SortFunc(lists, func(a, b *metav1.APIResourceList) int { return strings.Compare(a.GroupVersion, b.GroupVersion) })
		return lists, err
	}},
	{"discovery: preferred resources", func(_ context.Context, r *run) (any, error) {
		lists, err := r.typed.Discovery().ServerPreferredResources()
		names := []string{}
		for _, list := range lists {
			for _, each := range list.APIResources {
				names = append(names, list.GroupVersion+" "+each.Name)
			}
		}
		slices.Sort(names)
		return names, err
	}},
	{"openapi v3: every schema", func(_ context.Context, r *run) (any, error) {
		paths, err := r.typed.Discovery().OpenAPIV3().Paths()
		if err != nil {
			return nil, err
		}
		digests := map[string]string{}
		for name, each := range paths {
			if strings.Contains(name, ".example.com") {
				continue // of a definition that is on its way out
			}
			schema, err := each.Schema("application/json")
			if err != nil {
				return nil, err
			}
			digests[name] = digest(schema)
		}
		return digests, nil
	}},
	{"openapi v2", func(_ context.Context, r *run) (any, error) {
		document, err := r.typed.Discovery().OpenAPISchema()
		names := []string{}
		for _, each := range document.GetDefinitions().GetAdditionalProperties() {
			names = append(names, each.GetName())
		}
		slices.Sort(names)
		return names, err
	}},
	{"review: who am I", func(ctx context.Context, r *run) (any, error) {
		return r.typed.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authentication.SelfSubjectReview{}, metav1.CreateOptions{})
	}},
	{"review: can I", func(ctx context.Context, r *run) (any, error) {
		asked := &authorization.SelfSubjectAccessReview{Spec: authorization.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorization.ResourceAttributes{Verb: "create", Resource: "serviceaccounts", Namespace: r.namespace},
		}}
		answer, err := r.typed.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, asked, metav1.CreateOptions{})
		return answer.Status.Allowed, err
	}},
	{"review: what can I", func(ctx context.Context, r *run) (any, error) {
		asked := &authorization.SelfSubjectRulesReview{Spec: authorization.SelfSubjectRulesReviewSpec{Namespace: "default"}}
		answer, err := r.typed.AuthorizationV1().SelfSubjectRulesReviews().Create(ctx, asked, metav1.CreateOptions{})
		return len(answer.Status.ResourceRules) > 0, err
	}},
}
