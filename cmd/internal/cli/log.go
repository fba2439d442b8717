package cli

import (
	"fmt"
	"io"
	"log/slog"
)

// NewLogger returns a logger that writes to w. format is "text" or "json", level "debug", "info", "warn" or "error".
func NewLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var opts slog.HandlerOptions
	var lv slog.Level
	if err := lv.UnmarshalText([]byte(level)); err != nil {
		return nil, Usagef("log level %q is none of debug, info, warn and error", level)
	}
	opts.Level = lv
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, &opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, &opts)), nil
	}
	return nil, Usagef("log format %q is neither text nor json", format)
}

// ParseBytes reads a number of bytes with an optional binary unit: "4096", "64KiB", "1.5GiB", "200M".
func ParseBytes(s string) (uint64, error) {
	var v float64
	var unit string
	n, err := fmt.Sscanf(s, "%f%s", &v, &unit)
	if n == 0 || (n == 1 && unit != "") {
		return 0, Usagef("%q is no number of bytes: %v", s, err)
	}
	shift, ok := shifts[unit]
	v *= float64(uint64(1) << shift)
	if !ok || !(v >= 0 && v < 1<<63) { // so that it refuses NaN, too
		return 0, Usagef("%q is no number of bytes: write it as 4096, 64KiB, 1.5GiB", s)
	}
	return uint64(v), nil
}

var shifts = map[string]int{
	"": 0, "B": 0, "K": 10, "KiB": 10, "M": 20, "MiB": 20, "G": 30, "GiB": 30, "T": 40, "TiB": 40,
}
