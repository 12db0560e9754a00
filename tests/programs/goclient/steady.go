package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// What the server gives anew each time. Values of "continue" tell a version.
var varying = map[string]bool{
	"uid": true, "resourceVersion": true, "creationTimestamp": true, "deletionTimestamp": true, "time": true,
	"continue": true, "token": true, "expirationTimestamp": true, "lastTransitionTime": true, "lastUpdateTime": true,
	"startTime": true, "startedAt": true, "containerID": true,
	"authentication.kubernetes.io/credential-id": true,
}

var uid = regexp.MustCompile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

// steady is a value without what differs between two runs of the same steps on the same server. A value that varies is
// still told to be there.
func (r *run) steady(value any) any {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprintf("no JSON: %v", err)
	}
	var plain any
	if err := json.Unmarshal(text, &plain); err != nil {
		return fmt.Sprintf("no JSON: %v", err)
	}
	replacements := []string{r.config.Host, "<server>", r.namespace, "<namespace>"}
	if parsed, err := url.Parse(r.config.Host); err == nil {
		replacements = append(replacements, parsed.Host, "<host>")
	}
	return strip(plain, strings.NewReplacer(replacements...))
}

func strip(value any, replacer *strings.Replacer) any {
	switch value := value.(type) {
	case map[string]any:
		for key, each := range value {
			if varying[key] && each != nil && each != "" {
				value[key] = "<varies>"
			} else {
				value[key] = strip(each, replacer)
			}
		}
	case []any:
		for i, each := range value {
			value[i] = strip(each, replacer)
		}
	case string:
		return uid.ReplaceAllString(replacer.Replace(value), "<uid>")
	}
	return value
}
