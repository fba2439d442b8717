package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestDefaultsSayWhereTheyAreFrom(t *testing.T) {
	for _, row := range Default().Rows() {
		if row.Basis == Measured && !strings.Contains(row.From, "commit") {
			t.Errorf("%s was measured, but at which commit? %q", row.Name, row.From)
		}
	}
}

func TestInputsReplaceWhatTheyName(t *testing.T) {
	in, err := Read(strings.NewReader(`{"format":"thaw-fleet-inputs","version":1,
		"peer":{"first_byte_p50_s":{"value":0.0004,"basis":"measured","from":"a test at commit abc"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	d := Default()
	if want := (Input{0.0004, Measured, "a test at commit abc"}); in.Peer.P50 != want {
		t.Errorf("the input is %+v", in.Peer.P50)
	}
	in.Peer.P50 = d.Peer.P50
	a, _ := json.Marshal(in)
	b, _ := json.Marshal(d)
	if !bytes.Equal(a, b) {
		t.Error("other inputs have changed, too")
	}
}

func TestKindsReplaceAllKinds(t *testing.T) {
	const one = `{"value":1,"basis":"assumed","from":"x"}`
	in, err := Read(strings.NewReader(`{"format":"thaw-fleet-inputs","version":1,"kinds":[{"name":"only","weight":` + one +
		`,"bytes":{"value":1e6,"basis":"assumed","from":"x"},"set_bytes":` + one + `,"meta_bytes":` + one + `,"missed":` + one +
		`,"running_s":` + one + `,"overhead_s":` + one + `,"call_s":` + one + `}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if len(in.Kinds) != 1 || in.Kinds[0].Name != "only" {
		t.Errorf("the kinds are %+v", in.Kinds)
	}
	if _, err := Read(strings.NewReader(`{"format":"thaw-fleet-inputs","version":1,"kinds":[{"name":"only"}]}`)); !errors.Is(err, ErrInputs) {
		t.Errorf("a kind without its inputs is taken, from what was there before: %v", err)
	}
}

func TestInputsThatAreNotUnderstoodAreErrors(t *testing.T) {
	const head = `{"format":"thaw-fleet-inputs","version":1`
	for name, text := range map[string]string{
		"nothing":                "",
		"no JSON":                "x",
		"another format":         `{"format":"x","version":1}`,
		"another version":        `{"format":"thaw-fleet-inputs","version":2}`,
		"an unknown field":       head + `,"x":1}`,
		"an unknown field of it": head + `,"chunk_bytes":{"value":1e7,"basis":"assumed","from":"x","x":1}}`,
		"no basis":               head + `,"chunk_bytes":{"value":1e7,"from":"x"}}`,
		"another basis":          head + `,"chunk_bytes":{"value":1e7,"basis":"guessed","from":"x"}}`,
		"from nowhere":           head + `,"chunk_bytes":{"value":1e7,"basis":"assumed"}}`,
		"below its bound":        head + `,"chunk_bytes":{"value":1,"basis":"assumed","from":"x"}}`,
		"negative":               head + `,"fetch":{"timeout_s":{"value":-1,"basis":"assumed","from":"x"}}}`,
		"p50 above p99":          head + `,"peer":{"first_byte_p50_s":{"value":50,"basis":"assumed","from":"x"}}}`,
		"no kinds":               head + `,"kinds":[]}`,
		"something behind":       head + `}{}`,
		"too long":               head + `}` + strings.Repeat(" ", maxInputs),
	} {
		if in, err := Read(strings.NewReader(text)); !errors.Is(err, ErrInputs) {
			t.Errorf("%s: %+v, %v", name, in, err)
		}
	}
}

// Inputs are an error or good enough to simulate with; and what was read can be read again.
func FuzzInputs(f *testing.F) {
	f.Add(defaults)
	f.Add([]byte(`{"format":"thaw-fleet-inputs","version":1}`))
	f.Add([]byte(`{"format":"thaw-fleet-inputs","version":1,"kinds":[{"name":"x"}],"chunk_bytes":{"value":1e300,"basis":"assumed","from":"x"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := Read(bytes.NewReader(data))
		if err != nil {
			return
		}
		text, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Read(bytes.NewReader(text))
		if err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
		if twice, _ := json.Marshal(again); !bytes.Equal(text, twice) {
			t.Fatalf("read once: %s\ntwice: %s", text, twice)
		}
		for i := range in.Kinds {
			p := newPlan(in, &in.Kinds[i])
			if len(p.parts) > 64 {
				t.Fatalf("%d parts", len(p.parts))
			}
			for _, part := range p.parts {
				if part.bytes < 0 || part.rounds < 1 || part.requests < part.rounds {
					t.Fatalf("part %+v", part)
				}
			}
		}
	})
}
