package result

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestQuantiles(t *testing.T) {
	hundred := make([]float64, 101)
	for i := range hundred {
		hundred[i] = float64(i)
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(hundred), func(i, j int) { hundred[i], hundred[j] = hundred[j], hundred[i] })
	for _, tt := range []struct {
		name   string
		values []float64
		want   Quantiles
	}{
		{"no values have none", nil, Quantiles{}},
		{"one value is all of them", []float64{7}, Quantiles{1, 7, 7, 7, 7, 7}},
		{"between two values lies what is in proportion", []float64{20, 10}, Quantiles{2, 15, 19, 19.9, 19.99, 20}},
		{"values need not be sorted", hundred, Quantiles{101, 50, 90, 99, 99.9, 100}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := append([]float64(nil), tt.values...)
			approx := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-9 })
			if diff := cmp.Diff(tt.want, QuantilesOf(tt.values), approx); diff != "" {
				t.Errorf("quantiles (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, tt.values); diff != "" {
				t.Errorf("the values were changed:\n%s", diff)
			}
		})
	}
}

func TestSpreadIsTheMiddleHalfOverTheMedian(t *testing.T) {
	for _, tt := range []struct {
		name   string
		values []float64
		want   float64
	}{
		{"one value has none", []float64{5}, 0},
		{"equal values have none", []float64{5, 5, 5}, 0},
		{"of five values it is the fourth less the second", []float64{1, 8, 10, 14, 1000}, 0.6},
		{"a median of zero has none", []float64{-1, 0, 1}, 0},
	} {
		if got := Spread(tt.values); math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	if !math.IsNaN(Median(nil)) {
		t.Error("no values have a median")
	}
}

func TestHistogramHoldsEveryValueInItsBucket(t *testing.T) {
	values := []float64{0, 0.5, 1, 3, 1000, 1001, 1e9}
	n := 0
	for i, b := range histogram(values) {
		n += b.N
		if i > 0 && b.N == 0 {
			t.Errorf("bucket up to %v is empty", b.Le)
		}
	}
	if n != len(values) {
		t.Errorf("%d values are in buckets, want %d", n, len(values))
	}
	for _, v := range values[2:] {
		le := math.Exp2(float64(bucketOf(v)) / bucketsPerOctave)
		if v > le*1.000001 || v < le/math.Exp2(1.01/bucketsPerOctave) {
			t.Errorf("%v is in the bucket up to %v", v, le)
		}
	}
}
