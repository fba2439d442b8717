package cpu

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"
)

// Host is the CPU of a host, as far as programs see it.
type Host struct {
	Model    string `json:"model,omitempty"` // empty where the kernel does not say, as on ARM
	Features Set    `json:"features"`        // without the hidden ones
	Hidden   Set    `json:"hidden,omitempty"`
}

// ThisHost returns the CPU that we run on, as the kernel describes it, without the features to hide and without those that need
// one of them. Features that the CPU does not have may be hidden too. The error wraps that of reading /proc/cpuinfo.
func ThisHost(hide ...string) (*Host, error) {
	for _, name := range hide {
		if !isName(name) {
			return nil, fmt.Errorf("hide feature of the CPU: %q is no name of one", name)
		}
	}
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return nil, err
	}
	h := parse(text)
	h.Features, h.Hidden = split(h.Features, New(hide...))
	return h, nil
}

// parse reads the first CPU in the text of /proc/cpuinfo.
func parse(text []byte) *Host {
	h := new(Host)
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20) // the line of flags has some kilobytes
	for lines.Scan() && lines.Text() != "" {
		key, value, _ := strings.Cut(lines.Text(), ":")
		switch strings.TrimSpace(key) {
		case "model name":
			h.Model = strings.TrimSpace(value)
		case "flags", "Features":
			h.Features = Visible(New(strings.Fields(value)...))
		}
	}
	return h
}

// split parts what a CPU has into what is left and what is hidden: hide, and what needs something of it.
func split(all, hide Set) (left, hidden Set) {
	if len(hide) == 0 {
		return all, nil
	}
	for _, feature := range all {
		if hide.Has(feature) || needsOneOf(feature, hide) {
			hidden = append(hidden, feature)
		} else {
			left = append(left, feature)
		}
	}
	return left, hidden
}

// needs says which feature another one builds upon: no CPU has the one without the other, and programs count on that.
var needs = map[string]string{
	"avx": "xsave", "xsavec": "xsave", "xsaveopt": "xsave",
	"avx2": "avx", "fma": "avx", "f16c": "avx", "vaes": "avx", "vpclmulqdq": "avx", "fma4": "avx", "xop": "avx",
	"avx_vnni": "avx2", "avx_ifma": "avx2", "avx_vnni_int8": "avx2", "avx_vnni_int16": "avx2", "avx_ne_convert": "avx2",
	"avx512f":  "avx2",
	"amx_bf16": "amx_tile", "amx_int8": "amx_tile", "amx_fp16": "amx_tile", "amx_tile": "xsave",
	"sse4_2": "sse4_1", "sse4_1": "ssse3", "ssse3": "pni",
}

func needsOneOf(feature string, hide Set) bool {
	for base := feature; base != ""; {
		if hide.Has(base) {
			return true
		}
		next := needs[base]
		if next == "" && strings.HasPrefix(base, "avx512") && base != "avx512f" {
			next = "avx512f"
		}
		base = next
	}
	return false
}
