package control

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// document is the part of docs/openapi.yaml that has a counterpart in the code.
type document struct {
	Paths      map[string]map[string]yaml.Node `yaml:"paths"`
	Components struct {
		Schemas map[string]schema `yaml:"schemas"`
	} `yaml:"components"`
}

type schema struct {
	Ref                  string            `yaml:"$ref"`
	Type                 string            `yaml:"type"`
	Format               string            `yaml:"format"`
	Description          string            `yaml:"description"`
	Properties           map[string]schema `yaml:"properties"`
	Required             []string          `yaml:"required"`
	Enum                 []string          `yaml:"enum"`
	Items                *schema           `yaml:"items"`
	AdditionalProperties yaml.Node         `yaml:"additionalProperties"`
}

func readDocument(t *testing.T) *document {
	t.Helper()
	b, err := os.ReadFile("../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var d document
	if err := yaml.Unmarshal(b, &d); err != nil {
		t.Fatalf("docs/openapi.yaml: %v", err)
	}
	return &d
}

func TestDocumentNamesExactlyTheRoutes(t *testing.T) {
	var inCode, inDocument []string
	for _, r := range routes {
		inCode = append(inCode, r.method+" "+r.pattern)
	}
	for path, operations := range readDocument(t).Paths {
		for method := range operations {
			if method != "parameters" {
				inDocument = append(inDocument, strings.ToUpper(method)+" "+path)
			}
		}
	}
	slices.Sort(inCode)
	slices.Sort(inDocument)
	if diff := cmp.Diff(inCode, inDocument); diff != "" {
		t.Errorf("routes (-code +docs/openapi.yaml):\n%s", diff)
	}
}

// bodies are the types that cross the socket, by the name of their schema.
var bodies = map[string]reflect.Type{
	"SessionRequest": reflect.TypeFor[SessionRequest](),
	"Bind":           reflect.TypeFor[Bind](),
	"Session":        reflect.TypeFor[Session](),
	"SessionList":    reflect.TypeFor[SessionList](),
	"Progress":       reflect.TypeFor[Progress](),
	"Counters":       reflect.TypeFor[Counters](),
	"FailedPage":     reflect.TypeFor[FailedPage](),
	"Health":         reflect.TypeFor[Health](),
	"ErrorBody":      reflect.TypeFor[ErrorBody](),
	"Error":          reflect.TypeFor[Error](),
	"MarkRequest":    reflect.TypeFor[MarkRequest](),

	"WorkingSetReport": reflect.TypeFor[WorkingSetReport](),
	"RecordingReport":  reflect.TypeFor[RecordingReport](),
	"WorkingSetUse":    reflect.TypeFor[WorkingSetUse](),
	"RecordingState":   reflect.TypeFor[RecordingState](),
	"Mark":             reflect.TypeFor[Mark](),

	"PullRequest":  reflect.TypeFor[PullRequest](),
	"PullReport":   reflect.TypeFor[PullReport](),
	"PullMode":     reflect.TypeFor[PullMode](),
	"Tiers":        reflect.TypeFor[Tiers](),
	"TierMember":   reflect.TypeFor[TierMember](),
	"TierSource":   reflect.TypeFor[TierSource](),
	"TierClass":    reflect.TypeFor[TierClass](),
	"TierServed":   reflect.TypeFor[TierServed](),
	"TierMade":     reflect.TypeFor[TierMade](),
	"TierPush":     reflect.TypeFor[TierPush](),
	"TierCount":    reflect.TypeFor[TierCount](),
	"SourceTier":   reflect.TypeFor[SourceTier](),
	"SessionTiers": reflect.TypeFor[SessionTiers](),

	"Stream":       reflect.TypeFor[Stream](),
	"State":        reflect.TypeFor[State](),
	"HealthStatus": reflect.TypeFor[HealthStatus](),
	"Code":         reflect.TypeFor[Code](),
}

func TestDocumentNamesExactlyTheTypes(t *testing.T) {
	schemas := readDocument(t).Components.Schemas
	for name := range schemas {
		if _, ok := bodies[name]; !ok {
			t.Errorf("schema %s has no Go type", name)
		}
	}
	for name, typ := range bodies {
		s, ok := schemas[name]
		if !ok {
			t.Errorf("type %s has no schema", name)
			continue
		}
		if typ.Kind() == reflect.Struct {
			compareStruct(t, name, s, typ)
		}
	}
}

// compareStruct holds the properties of s against the fields of typ: names, kinds, and which of them are always there.
func compareStruct(t *testing.T, name string, s schema, typ reflect.Type) {
	t.Helper()
	var required []string
	inCode := map[string]string{}
	for f := range typ.Fields() {
		field, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if field == "" {
			t.Errorf("%s.%s has no json tag", name, f.Name)
		}
		inCode[field] = kindOf(f.Type)
		if options == "" {
			required = append(required, field)
		}
	}
	inDocument := map[string]string{}
	for field, p := range s.Properties {
		inDocument[field] = p.kind()
	}
	if diff := cmp.Diff(inCode, inDocument); diff != "" {
		t.Errorf("fields of %s (-code +docs/openapi.yaml):\n%s", name, diff)
	}
	slices.Sort(required)
	slices.Sort(s.Required)
	if diff := cmp.Diff(required, s.Required); diff != "" {
		t.Errorf("fields of %s that are always there (-code +docs/openapi.yaml):\n%s", name, diff)
	}
}

// kindOf names a Go type as schema.kind names a schema.
func kindOf(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == reflect.TypeFor[time.Time]() {
		return "string date-time"
	}
	for name, body := range bodies {
		if t == body {
			return name
		}
	}
	if t == reflect.TypeFor[json.RawMessage]() {
		return "object"
	}
	switch t.Kind() {
	case reflect.String:
		return "string"
	case reflect.Int:
		return "integer"
	case reflect.Uint64:
		return "integer uint64"
	case reflect.Float64:
		return "number"
	case reflect.Bool:
		return "boolean"
	case reflect.Slice:
		return "array of " + kindOf(t.Elem())
	case reflect.Map:
		return "object"
	}
	return fmt.Sprintf("a Go %s, which this test does not know", t)
}

func (s schema) kind() string {
	switch {
	case s.Ref != "":
		return strings.TrimPrefix(s.Ref, "#/components/schemas/")
	case s.Type == "array" && s.Items != nil:
		return "array of " + s.Items.kind()
	case s.Format != "":
		return s.Type + " " + s.Format
	}
	return s.Type
}

func TestDocumentListsExactlyTheValues(t *testing.T) {
	schemas := readDocument(t).Components.Schemas
	for name, inCode := range map[string][]string{
		"Stream":       texts(Streams()),
		"State":        texts(States()),
		"HealthStatus": texts([]HealthStatus{HealthOK, HealthDraining}),
		"Code":         texts(Codes()),

		"PullMode":       texts(PullModes()),
		"SourceTier":     texts(SourceTiers()),
		"WorkingSetUse":  texts(WorkingSetUses()),
		"RecordingState": texts(RecordingStates()),
		"Mark":           texts(Marks()),
	} {
		if diff := cmp.Diff(inCode, schemas[name].Enum); diff != "" {
			t.Errorf("values of %s (-code +docs/openapi.yaml):\n%s", name, diff)
		}
	}
	words := strings.Join(strings.Fields(schemas["Code"].Description), " ")
	for _, c := range Codes() {
		if told := fmt.Sprintf("%s %d", string(c), c.Status()); !strings.Contains(words, told) {
			t.Errorf("the description of Code does not say %q", told)
		}
	}
}

func texts[T ~string](in []T) []string {
	var out []string
	for _, v := range in {
		out = append(out, string(v))
	}
	return out
}

func TestUnknownFieldsOfRequestsAreRefusedInTheDocumentToo(t *testing.T) {
	extra := readDocument(t).Components.Schemas["SessionRequest"].AdditionalProperties
	if extra.Value != "false" {
		t.Errorf("SessionRequest.additionalProperties = %q, want false", extra.Value)
	}
}
