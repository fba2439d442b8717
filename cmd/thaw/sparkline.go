package main

import "strings"

// A spark is a line of numbers that is drawn.
type spark struct {
	name   string
	values []uint64
}

// sparklines draws lines of numbers on the same scale, each as a row of a table. What is not nothing is seen.
func sparklines(lines []spark) [][]string {
	levels := []rune("▁▂▃▄▅▆▇█")
	var top uint64 = 1
	for _, l := range lines {
		for _, v := range l.values {
			top = max(top, v)
		}
	}
	rows := make([][]string, 0, len(lines))
	for _, l := range lines {
		var b strings.Builder
		for _, v := range l.values {
			if v == 0 {
				b.WriteRune(' ')
				continue
			}
			b.WriteRune(levels[int(float64(v)/float64(top)*float64(len(levels))+0.999)-1])
		}
		rows = append(rows, []string{l.name, "[" + b.String() + "]"})
	}
	return rows
}
