package result

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// verdicts returns the verdict of each change, by subject, metric and figure.
func verdicts(c *Comparison) map[string]string {
	out := make(map[string]string)
	for i := range c.Changes {
		ch := &c.Changes[i]
		out[ch.Subject+" "+ch.Metric.Name+" "+string(ch.Figure)] = ch.Verdict()
	}
	return out
}

func TestCompareTellsDifferencesFromNoise(t *testing.T) {
	for _, tt := range []struct {
		name          string
		before, after float64
		want          string
	}{
		{"the same", 1, 1, "noise"},
		{"slower", 1, 1.5, "worse"},
		{"faster", 1.5, 1, "better"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := map[string]string{
				"c-poll latency median": "noise", "c-poll latency p99": "noise", "thaw latency median": tt.want, "thaw latency p99": tt.want,
				"c-poll fill median": "noise", "thaw fill median": tt.want,
			}
			if tt.name != "the same" {
				want["c-poll fill median"] = tt.want // its rate follows the factor, too
			}
			if diff := cmp.Diff(want, verdicts(Compare(sample(tt.before), sample(tt.after)))); diff != "" {
				t.Errorf("verdicts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCompareNamesWhatOnlyOneRunHasAndWhatIsDifferentAboutTheHosts(t *testing.T) {
	a, b := sample(1), sample(1)
	b.Series = b.Series[:len(b.Series)-1]
	b.Host.Kernel = "6.19.0"
	c := Compare(a, b)
	if len(c.OnlyBefore) != 1 || len(c.OnlyAfter) != 0 || len(c.Hosts) != 1 || !strings.Contains(c.Hosts[0], "6.19.0") {
		t.Errorf("comparison is %+v", c)
	}
	var out bytes.Buffer
	if err := c.WriteTable(&out, false); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"not the same machine: kernel: 6.18.0, then 6.19.0", "only in the first: FaultUnderFill/", "0 of "} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("the table lacks %q:\n%s", part, &out)
		}
	}
	if strings.Contains(out.String(), "thaw  ") || strings.Contains(out.String(), "noise  ") {
		t.Errorf("noise is shown without being asked for:\n%s", &out)
	}
}

func TestMannWhitneyIsTheTextbooks(t *testing.T) {
	// R: wilcox.test(a, b, exact = FALSE)$p.value
	for _, tt := range []struct {
		name string
		a, b []float64
		want float64
	}{
		{"apart", []float64{1, 2, 3, 4, 5}, []float64{6, 7, 8, 9, 10}, 0.01219},
		{"mixed", []float64{1, 4, 5, 8}, []float64{2, 3, 6, 7}, 1},
		{"with ties", []float64{1, 2, 2, 3, 3}, []float64{3, 4, 4, 5, 5}, 0.01925},
		{"all equal", []float64{1, 1, 1, 1}, []float64{1, 1, 1, 1}, 1},
		{"too few", []float64{1, 2, 3}, []float64{10, 11, 12}, 1},
	} {
		if got := mannWhitney(tt.a, tt.b); math.Abs(got-tt.want) > 5e-4 {
			t.Errorf("%s: p is %.5f, want %.5f", tt.name, got, tt.want)
		}
	}
}
