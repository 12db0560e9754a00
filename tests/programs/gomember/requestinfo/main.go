// requestinfo reads request lines, one JSON array [method, target] a line, and answers with what kube-apiserver would make
// of each: its own RequestInfoFactory, configured as its own server configures it.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"

	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metainternalversionscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
)

type answer struct {
	Error       string `json:"error"`
	Undecodable bool   `json:"undecodable"` // its handlers of list and watch answer 400
	Path        string `json:"path"`
	Verb        string `json:"verb"`
	IsResource  bool   `json:"isResource"`
	Group       string `json:"group"`
	Version     string `json:"version"`
	Resource    string `json:"resource"`
	Subresource string `json:"subresource"`
	Namespace   string `json:"namespace"`
	Name        string `json:"name"`
}

func read(factory request.RequestInfoFactory, method, target string) answer {
	parsed, err := url.ParseRequestURI(target)
	if err != nil {
		return answer{Error: err.Error()}
	}
	info, err := factory.NewRequestInfo(&http.Request{Method: method, URL: parsed})
	if err != nil {
		return answer{Error: err.Error()}
	}
	var options metainternalversion.ListOptions
	undecodable := metainternalversionscheme.ParameterCodec.DecodeParameters(parsed.Query(), metav1.SchemeGroupVersion, &options)
	return answer{"", undecodable != nil, info.Path, info.Verb, info.IsResourceRequest, info.APIGroup, info.APIVersion, info.Resource,
		info.Subresource, info.Namespace, info.Name}
}

func main() {
	// As genericapiserver.NewRequestInfoResolver.
	factory := request.RequestInfoFactory{
		APIPrefixes:          sets.NewString("api", "apis"),
		GrouplessAPIPrefixes: sets.NewString("api"),
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 1<<20), 1<<20)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for lines.Scan() {
		var line []string
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil || len(line) != 2 {
			fmt.Fprintln(os.Stderr, "not a pair:", lines.Text())
			os.Exit(1)
		}
		told, err := json.Marshal(read(factory, line[0], line[1]))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		out.Write(told)
		out.WriteByte('\n')
	}
}
