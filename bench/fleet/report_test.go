package fleet

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
)

func sample(t *testing.T) *Report {
	t.Helper()
	r, err := SimulateAll(t.Context(), small(), []Scenario{Burst, Zone}, []int{10, 20}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestPageSaysOfEachInputWhetherItWasMeasured(t *testing.T) {
	var b bytes.Buffer
	if err := sample(t).WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, row := range Default().Rows() {
		if !regexp.MustCompile(`>` + string(row.Basis) + `</span></td><td class="l">` + regexp.QuoteMeta(row.Name) + `</td>`).MatchString(page) {
			t.Errorf("the page does not say that %q was %s", row.Name, row.Basis)
		}
	}
	if n := strings.Count(page, "<svg "); n != 2*5 {
		t.Errorf("%d pictures, want five for each scenario", n)
	}
	if !strings.Contains(page, "are assumed") || !strings.HasSuffix(page, "</html>\n") {
		t.Error("the page is not whole")
	}
	if regexp.MustCompile(`(src|href)="[^#]`).MatchString(page) {
		t.Error("the page refers to something outside")
	}
	if strings.Contains(page, "NaN") || strings.Contains(page, "Inf") {
		t.Error("a picture has coordinates that are no numbers")
	}
}

func TestTableHasARowForEachRun(t *testing.T) {
	var b bytes.Buffer
	if err := sample(t).WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(b.String(), "with peers"); n != 4 {
		t.Errorf("%d rows, want 4:\n%s", n, &b)
	}
	if n := strings.Count(b.String(), "object store alone"); n != 4 {
		t.Errorf("%d rows, want 4:\n%s", n, &b)
	}
	if !strings.HasPrefix(b.String(), "Simulated: ") {
		t.Errorf("the table does not say that it was simulated:\n%s", &b)
	}
}

func TestReportOfMeasuredWiresSaysSo(t *testing.T) {
	r := &Report{Inputs: Default()}
	if !strings.Contains(r.Caveat(), "object store take is assumed") {
		t.Error(r.Caveat())
	}
	for _, v := range []*Input{&r.Inputs.Peer.P50, &r.Inputs.Peer.P99, &r.Inputs.Peer.Stream, &r.Inputs.Object.P50, &r.Inputs.Object.P99, &r.Inputs.Object.Stream} {
		v.Basis = Measured
	}
	if !strings.Contains(r.Caveat(), "object store take is measured") {
		t.Error(r.Caveat())
	}
}
