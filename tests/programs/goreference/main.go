// Goreference answers, with Kubernetes' own libraries, what a patch makes of an object and who then manages its fields.
//
// The first line of standard input is an OpenAPI v3 `components.schemas`; each further line is a case, answered by one
// line. A case has `do`: json, merge, strategic (before, patch) or fields (steps on one object of a kind).
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

type step struct {
	Do      string         `json:"do"`
	Object  map[string]any `json:"object"`
	Manager string         `json:"manager"`
	Force   bool           `json:"force"`
}

type testCase struct {
	Do          string          `json:"do"`
	Schema      string          `json:"schema"`
	Before      json.RawMessage `json:"before"`
	Patch       json.RawMessage `json:"patch"`
	APIVersion  string          `json:"apiVersion"`
	Kind        string          `json:"kind"`
	Subresource string          `json:"subresource"`
	Reset       [][]string      `json:"reset"`
	Steps       []step          `json:"steps"`
}

type answer struct {
	Object any      `json:"object,omitempty"`
	Error  string   `json:"error,omitempty"`
	Fields []string `json:"fields,omitempty"`
	Steps  []answer `json:"steps,omitempty"`
}

type reference struct {
	schemas map[string]*spec.Schema
	types   managedfields.TypeConverter
}

func main() {
	if err := serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(in io.Reader, out io.Writer) error {
	lines := bufio.NewReader(in)
	first, err := lines.ReadBytes('\n')
	if err != nil {
		return err
	}
	r := &reference{}
	if err := json.Unmarshal(first, &r.schemas); err != nil {
		return err
	}
	if r.types, err = managedfields.NewTypeConverter(r.schemas, false); err != nil {
		return err
	}
	writer := bufio.NewWriter(out)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		c := testCase{}
		if err := utiljson.Unmarshal(line, &c); err != nil {
			return err
		}
		told, err := json.Marshal(r.answer(c))
		if err != nil {
			return err
		}
		writer.Write(append(told, '\n'))
		if err := writer.Flush(); err != nil {
			return err
		}
	}
}

func (r *reference) answer(c testCase) answer {
	var patched []byte
	var err error
	switch c.Do {
	case "json":
		var patch jsonpatch.Patch
		if patch, err = jsonpatch.DecodePatch(c.Patch); err == nil {
			patched, err = patch.Apply(c.Before)
		}
	case "merge":
		patched, err = jsonpatch.MergePatch(c.Before, c.Patch)
	case "strategic":
		meta := strategicpatch.PatchMetaFromOpenAPIV3{SchemaList: r.schemas, Schema: r.schemas[c.Schema]}
		patched, err = strategicpatch.StrategicMergePatchUsingLookupPatchMeta(c.Before, c.Patch, meta)
	case "fields":
		return r.fields(c)
	default:
		err = fmt.Errorf("unknown case %q", c.Do)
	}
	if err != nil {
		return answer{Error: err.Error()}
	}
	return answer{Object: json.RawMessage(bytes.TrimSpace(patched))}
}

func (r *reference) fields(c testCase) answer {
	version, err := schema.ParseGroupVersion(c.APIVersion)
	if err != nil {
		return answer{Error: err.Error()}
	}
	kind := version.WithKind(c.Kind)
	reset := fieldpath.NewSet()
	for _, path := range c.Reset {
		parts := make([]any, len(path))
		for i := range path {
			parts[i] = path[i]
		}
		reset.Insert(fieldpath.MakePathOrDie(parts...))
	}
	filters := map[fieldpath.APIVersion]fieldpath.Filter{
		fieldpath.APIVersion(c.APIVersion): fieldpath.NewExcludeSetFilter(reset),
	}
	manager, err := managedfields.NewDefaultFieldManager(
		r.types, unconverted{}, undefaulted{}, empty{}, kind, version, c.Subresource, filters)
	if err != nil {
		return answer{Error: err.Error()}
	}
	live, _ := empty{}.New(kind)
	told := answer{}
	for _, step := range c.Steps {
		object := &unstructured.Unstructured{Object: step.Object}
		var next runtime.Object
		if step.Do == "apply" {
			next, err = manager.Apply(live.DeepCopyObject(), object, step.Manager, step.Force)
		} else {
			next, err = manager.Update(live.DeepCopyObject(), object, step.Manager)
		}
		if err != nil {
			told.Steps = append(told.Steps, refused(err))
			continue
		}
		live = next
		if accessor := live.(*unstructured.Unstructured); accessor.GetUID() == "" {
			accessor.SetUID("1") // stored from now on
		}
		told.Steps = append(told.Steps, answer{Object: live.DeepCopyObject()})
	}
	return told
}

func refused(err error) answer {
	told := answer{Error: err.Error()}
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Details != nil {
		for _, cause := range status.Status().Details.Causes {
			told.Fields = append(told.Fields, strings.Join([]string{string(cause.Type), cause.Message, cause.Field}, "|"))
		}
	}
	return told
}

type unconverted struct{}

func (unconverted) Convert(in, out, context any) error { return errors.New("nothing is converted here") }

func (unconverted) ConvertToVersion(in runtime.Object, _ runtime.GroupVersioner) (runtime.Object, error) {
	return in, nil
}

func (unconverted) ConvertFieldLabel(_ schema.GroupVersionKind, _, _ string) (string, string, error) {
	return "", "", errors.New("nothing is converted here")
}

type undefaulted struct{}

func (undefaulted) Default(runtime.Object) {}

type empty struct{}

func (empty) New(kind schema.GroupVersionKind) (runtime.Object, error) {
	made := &unstructured.Unstructured{}
	made.SetGroupVersionKind(kind)
	return made, nil
}
