package cpu

import (
	"fmt"
	"strings"
)

// levels are those of the x86-64 psABI, in the names of /proc/cpuinfo ("pni" is SSE3, "abm" LZCNT), the lowest first. Each holds
// the one before it.
var levels = makeLevels(
	namedList{"x86-64", "cmov cx8 fpu fxsr lm mmx sse sse2 syscall"},
	namedList{"x86-64-v2", "cx16 lahf_lm pni popcnt sse4_1 sse4_2 ssse3"},
	namedList{"x86-64-v3", "abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"},
	namedList{"x86-64-v4", "avx512bw avx512cd avx512dq avx512f avx512vl"},
)

type namedList struct{ name, adds string }

type level struct {
	name string
	set  Set
}

func makeLevels(lists ...namedList) (out []level) {
	var below Set
	for _, l := range lists {
		below = below.Plus(strings.Fields(l.adds))
		out = append(out, level{l.name, below})
	}
	return out
}

// Level returns the set of a level: "x86-64", "x86-64-v2", "x86-64-v3" or "x86-64-v4".
func Level(name string) (Set, bool) {
	for _, l := range levels {
		if l.name == name {
			return l.set, true
		}
	}
	return nil, false
}

// Native is the choice of all features of the host, which needs no mask.
const Native = "native"

// Parse reads a set: names of levels and features, with commas between. Names of features that it does not know are taken, as
// CPUs get new ones.
func Parse(text string) (Set, error) {
	var out Set
	for word := range strings.SplitSeq(text, ",") {
		word = strings.TrimSpace(word)
		if set, ok := Level(word); ok {
			out = out.Plus(set)
			continue
		}
		if !isName(word) {
			return nil, fmt.Errorf("%q is neither a level (x86-64-v2, x86-64-v3, x86-64-v4) nor the name of a feature as /proc/cpuinfo has it", word)
		}
		out = out.Plus(Set{word})
	}
	return out, nil
}

// Confinement is the choice of what a process may use.
type Confinement struct {
	// Features are what the process may use.
	Features Set `json:"features"`
	// Masked says that its CPU may have more, which [Set.Mask] hides from it.
	Masked bool `json:"masked,omitempty"`
}

// Confine returns what a process on this host may use by the choice: [Native], or what [Parse] reads. The error is a
// [*MissingError] if the host lacks some of it.
func (h *Host) Confine(choice string) (Confinement, error) {
	if choice == Native || choice == "" {
		return Confinement{Features: h.Features, Masked: len(h.Hidden) > 0}, nil
	}
	set, err := Parse(choice)
	if err != nil {
		return Confinement{}, err
	}
	if err := h.Features.Admit(set); err != nil {
		return Confinement{}, fmt.Errorf("%s: %w", choice, err)
	}
	return Confinement{Features: set, Masked: true}, nil
}

// Environment returns the environment variables that a process needs for it; nil if it needs none.
func (c *Confinement) Environment() map[string]string {
	if !c.Masked {
		return nil
	}
	return c.Features.Mask()
}
