package result

import (
	"math"
	"slices"
)

// Quantiles of a set of values, in the values' unit.
type Quantiles struct {
	N    int     `json:"n"` // how many values there were
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// QuantilesOf returns the quantiles of values, which it leaves as they are. Of no values all are 0.
func QuantilesOf(values []float64) Quantiles {
	sorted := slices.Sorted(slices.Values(values))
	if len(sorted) == 0 {
		return Quantiles{}
	}
	return Quantiles{
		N:    len(sorted),
		P50:  quantile(sorted, 0.5),
		P90:  quantile(sorted, 0.9),
		P99:  quantile(sorted, 0.99),
		P999: quantile(sorted, 0.999),
		Max:  sorted[len(sorted)-1],
	}
}

// quantile returns the value below which the part q of the sorted values lies, between two of them in proportion (the
// seventh of Hyndman and Fan's definitions, which spreadsheets and R use too).
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	low := int(math.Floor(at))
	if low+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}

// Median returns the median of values; NaN if there are none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	return quantile(slices.Sorted(slices.Values(values)), 0.5)
}

// Spread returns the range in which the middle half of values lies, as a part of their median: the interquartile range
// over the median. It is 0 for fewer than two values, and where the median is 0.
func Spread(values []float64) float64 {
	median := Median(values)
	if len(values) < 2 || median == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return math.Abs((quantile(sorted, 0.75) - quantile(sorted, 0.25)) / median)
}
