package version

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const described = `{"sdk": "0.1.0", "python": "3.13.5", "app": "demo", "sources": ["app.py"], "include": [], "dependencies": null, "data": ["model.bin"],
"template": {"modules": ["torch"]}, "later": "a field of a newer SDK",
"objects": [{"name": "Embedder", "kind": "class", "snapshot": true,
  "methods": [{"name": "embed", "kind": "method", "async": false, "signature": "(sentences: list[str])"}],
  "parameters": [{"name": "size", "type": "int", "required": false, "default": 3}],
  "concurrency": 2, "env": {"A": "b"}, "secrets": ["TOKEN"], "cpu": 1.5, "memory": null, "gpu": null, "min_instances": 0, "idle_timeout": null,
  "warmup": true, "template": null}]}`

func TestWhatTheSDKSaysIsUnderstood(t *testing.T) {
	got, err := ParseDescription([]byte(described))
	if err != nil {
		t.Fatal(err)
	}
	cores := 1.5
	want := &Description{
		SDK: "0.1.0", Python: "3.13.5", App: "demo", Sources: []string{"app.py"}, Include: []string{}, Data: []string{"model.bin"},
		Template: &Template{Modules: []string{"torch"}},
		Objects: []Object{{
			Name: "Embedder", Kind: "class", Snapshot: true, Methods: []Method{{Name: "embed", Kind: "method", Signature: "(sentences: list[str])"}},
			Parameters:  []Parameter{{Name: "size", Type: "int", Default: json.RawMessage("3")}},
			Concurrency: 2, Env: map[string]string{"A": "b"}, Secrets: []string{"TOKEN"}, CPU: &cores, WarmUp: true,
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("description (-want +got):\n%s", diff)
	}
	if got.Object("Embedder") != &got.Objects[0] || got.Object("other") != nil {
		t.Error("objects are not found by their names")
	}
}

func TestAnErrorOfTheAuthorIsToldAsOne(t *testing.T) {
	_, err := ParseDescription([]byte(`{"error": {"type": "ImportError", "message": "no torch", "traceback": "Traceback ...\n"}}`))
	var author *AuthorError
	if !errors.As(err, &author) || author.Traceback != "Traceback ...\n" || err.Error() != "ImportError: no torch" {
		t.Errorf("error is %v", err)
	}
}

func TestUnusableDescriptionsAreRefused(t *testing.T) {
	for name, change := range map[string][2]string{
		"no JSON":                     {described, "hello"},
		"a list":                      {described, "[]"},
		"no app":                      {`"demo"`, `""`},
		"an app with a path for name": {`"demo"`, `"../demo"`},
		"no sources":                  {`["app.py"]`, `[]`},
		"a source outside":            {`["app.py"]`, `["../app.py"]`},
		"data outside":                {`["model.bin"]`, `["/etc/passwd"]`},
		"an unknown kind":             {`"class"`, `"module"`},
		"a method of unknown kind":    {`"method"`, `"socket"`},
		"no concurrency":              {`"concurrency": 2`, `"concurrency": 0`},
		"less than no CPU":            {`1.5`, `-1`},
		"no memory":                   {`"memory": null`, `"memory": 0`},
		"negative idle timeout":       {`"idle_timeout": null`, `"idle_timeout": -1`},
		"an object without a name":    {`"Embedder"`, `""`},
		"too long":                    {described, strings.Repeat(" ", MaxDescriptionLen+1)},
	} {
		text := strings.Replace(described, change[0], change[1], 1)
		if _, err := ParseDescription([]byte(text)); !errors.Is(err, ErrDescription) {
			t.Errorf("%s: %v, want ErrDescription", name, err)
		}
	}
	if _, err := ParseDescription([]byte(`{"app": "demo", "sources": ["app.py"], "objects": []}`)); !errors.Is(err, ErrDescription) {
		t.Errorf("no objects: %v", err)
	}
}

func FuzzParseDescription(f *testing.F) {
	f.Add([]byte(described))
	f.Add([]byte(`{"error": {"type": "X"}}`))
	f.Add([]byte(`{"objects": [null]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := ParseDescription(text)
		if (d == nil) == (err == nil) {
			t.Fatalf("description %v and error %v", d, err)
		}
		if err != nil {
			return
		}
		again, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseDescription(again); err != nil && len(again) <= MaxDescriptionLen {
			t.Errorf("read back: %v", err)
		}
	})
}
