package result

import (
	"fmt"
	"math"
	"strconv"
)

// Format writes a value for people, with three digits and in a unit that suits it.
func Format(v float64, unit string) string {
	switch unit {
	case "ns":
		return scaled(v, []string{"ns", "us", "ms", "s"})
	case "B/s":
		return scaled(v, []string{"B/s", "kB/s", "MB/s", "GB/s", "TB/s"})
	case "B":
		return scaled(v, []string{"B", "kB", "MB", "GB", "TB"})
	case "":
		return digits(v)
	}
	return digits(v) + " " + unit
}

func scaled(v float64, units []string) string {
	i := 0
	for math.Abs(v) >= 999.5 && i+1 < len(units) {
		v /= 1000
		i++
	}
	return digits(v) + " " + units[i]
}

// digits writes three significant digits, and all that are before the point.
func digits(v float64) string {
	switch a := math.Abs(v); {
	case a == 0:
		return "0"
	case a >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// Percent writes a part as a percentage.
func Percent(v float64) string { return fmt.Sprintf("%.0f %%", 100*v) }
