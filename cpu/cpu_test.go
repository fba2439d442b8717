package cpu

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"thaw/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func level4(t *testing.T) Set {
	t.Helper()
	s, ok := Level("x86-64-v4")
	if !ok {
		t.Fatal("there is no x86-64-v4")
	}
	return s
}

func TestEachLevelHoldsTheOneBelow(t *testing.T) {
	var below Set
	for _, l := range levels {
		if !l.set.HasAll(below) || l.set.Equal(below) {
			t.Errorf("%s does not go beyond the level below", l.name)
		}
		if diff := cmp.Diff(l.set, Visible(l.set)); diff != "" {
			t.Errorf("%s names what no program acts on:\n%s", l.name, diff)
		}
		for _, f := range l.set {
			if needed := needs[f]; needed != "" && !l.set.Has(needed) {
				t.Errorf("%s has %s without %s", l.name, f, needed)
			}
		}
		below = l.set
	}
	if _, ok := Level("x86-64-v5"); ok {
		t.Error("there is an x86-64-v5")
	}
}

func TestSetsAreReadAsTheyArePrinted(t *testing.T) {
	for text, want := range map[string]string{
		"x86-64-v3":           "x86-64-v3",
		"x86-64-v3,aes":       "x86-64-v3,aes",
		" sha_ni, x86-64-v2 ": "x86-64-v2,sha_ni",
		"x86-64-v2,x86-64-v4": "x86-64-v4",
		"avx2,aes,avx2":       "aes,avx2",
		"some_new_thing":      "some_new_thing",
	} {
		s, err := Parse(text)
		if err != nil {
			t.Errorf("Parse(%q): %v", text, err)
			continue
		}
		if got := s.String(); got != want {
			t.Errorf("Parse(%q) = %s, want %s", text, got, want)
		}
		if again, err := Parse(s.String()); err != nil || !again.Equal(s) {
			t.Errorf("%s is read as %s, %v", s, again, err)
		}
	}
	for _, text := range []string{"", "x86-64-v5", "AVX2", "avx2,,aes", "avx2 aes", strings.Repeat("x", 100)} {
		if s, err := Parse(text); err == nil {
			t.Errorf("Parse(%q) = %s, want an error", text, s)
		}
	}
}

func TestASummaryIsShort(t *testing.T) {
	for text, want := range map[string]string{
		"x86-64-v3": "x86-64-v3", "x86-64-v3,aes,sha_ni": "x86-64-v3 and 2 more", "avx": "avx", "aes,avx": "aes and 1 more",
	} {
		s, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Summary(); got != want {
			t.Errorf("summary of %s is %q, want %q", text, got, want)
		}
	}
}

func TestSetsInJSONAreLists(t *testing.T) {
	text, err := json.Marshal(New("avx2", "aes"))
	if err != nil || string(text) != `["aes","avx2"]` {
		t.Errorf("%s, %v", text, err)
	}
	var s Set
	if err := json.Unmarshal(text, &s); err != nil || !s.Equal(New("aes", "avx2")) {
		t.Errorf("read as %v, %v", s, err)
	}
	for _, bad := range []string{`["b","a"]`, `["a","a"]`, `["A"]`, `[""]`, `"a"`, `[1]`} {
		if err := json.Unmarshal([]byte(bad), &s); err == nil {
			t.Errorf("%s was read as %v", bad, s)
		}
	}
}

func TestCPUInfoOfAnIntelAndAnArmHostIsRead(t *testing.T) {
	for _, tt := range []struct {
		name, text, model string
		features          Set
	}{
		{"x86", "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: sse2 fpu avx2 smep constant_tsc\n\nprocessor\t: 1\nflags\t\t: other\n", "AMD EPYC", New("avx2", "fpu", "sse2")},
		{"arm", "processor\t: 0\nFeatures\t: fp asimd\n", "", New("asimd", "fp")},
		{"nothing", "", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := parse([]byte(tt.text))
			if h.Model != tt.model || !h.Features.Equal(tt.features) {
				t.Errorf("read as %+v, want %q with %v", h, tt.model, tt.features)
			}
		})
	}
}

func TestHidingAFeatureHidesWhatNeedsIt(t *testing.T) {
	all := level4(t).Plus(New("avx512_vnni", "avx_vnni", "aes", "vaes", "xsavec"))
	for _, tt := range []struct{ hide, hidden string }{
		{"avx512f", "avx512_vnni avx512bw avx512cd avx512dq avx512f avx512vl"},
		{"avx512vl", "avx512vl"},
		{"aes", "aes"},
		{"xsave", "avx avx2 avx512_vnni avx512bw avx512cd avx512dq avx512f avx512vl avx_vnni f16c fma vaes xsave xsavec"},
		{"not_there", ""},
	} {
		left, hidden := split(all, New(tt.hide))
		if got := strings.Join(hidden, " "); got != tt.hidden {
			t.Errorf("with %s hidden: %s, want %s", tt.hide, got, tt.hidden)
		}
		if !left.Plus(hidden).Equal(all) {
			t.Errorf("with %s hidden, %v are lost", tt.hide, all.Minus(left.Plus(hidden)))
		}
	}
}

func TestThisHostHasFeaturesAndLosesTheHiddenOnes(t *testing.T) {
	h, err := ThisHost()
	if err != nil || len(h.Features) == 0 {
		t.Fatalf("this host is %+v, %v", h, err)
	}
	first := h.Features[0]
	less, err := ThisHost(first)
	if err != nil || less.Features.Has(first) || !less.Hidden.Has(first) {
		t.Errorf("with %s hidden: %+v, %v", first, less, err)
	}
	if _, err := ThisHost("AVX 2"); err == nil {
		t.Error("a name that is none was hidden")
	}
}

func TestAHostWithoutAFeatureIsNotAdmittedAndToldWhichOne(t *testing.T) {
	v3, _ := Level("x86-64-v3")
	v4 := level4(t)
	if err := v4.Admit(v3); err != nil {
		t.Errorf("v4 may not have what uses v3: %v", err)
	}
	err := v3.Admit(v4)
	var missing *MissingError
	if !errors.As(err, &missing) || !missing.Missing.Equal(New("avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")) {
		t.Fatalf("v3 may have what uses v4: %v", err)
	}
	if !strings.Contains(err.Error(), "avx512f") {
		t.Errorf("%q does not name what is missing", err)
	}
}

func TestConfinementOfAChoice(t *testing.T) {
	v3, _ := Level("x86-64-v3")
	v4 := level4(t)
	host := &Host{Features: v4}
	hiding := &Host{Features: v3, Hidden: v4.Minus(v3)}
	for _, tt := range []struct {
		name   string
		host   *Host
		choice string
		want   Confinement
	}{
		{"native is all that the host has, unmasked", host, Native, Confinement{Features: v4}},
		{"no choice is native", host, "", Confinement{Features: v4}},
		{"native on a host that hides something is masked", hiding, Native, Confinement{Features: v3, Masked: true}},
		{"a level is masked", host, "x86-64-v3", Confinement{Features: v3, Masked: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.host.Confine(tt.choice)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if (got.Environment() != nil) != tt.want.Masked {
				t.Errorf("environment is %v", got.Environment())
			}
		})
	}
	var missing *MissingError
	if _, err := hiding.Confine("x86-64-v4"); !errors.As(err, &missing) {
		t.Errorf("confined to what the host lacks: %v", err)
	}
	if _, err := host.Confine("I386"); err == nil || errors.As(err, &missing) {
		t.Errorf("a name that is none: %v", err)
	}
}

// TestMasksOfTheLevels holds the values still: a snapshot taken with one is to be equal to the next.
func TestMasksOfTheLevels(t *testing.T) {
	for _, tt := range []struct {
		set  string
		want map[string]string
	}{
		{"x86-64-v2", map[string]string{
			"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "OPENBLAS_CORETYPE": "Nehalem", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
			"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX,-AVX2,-AVX512F,-AVX512BW,-AVX512CD,-AVX512DQ,-AVX512VL,-BMI1,-BMI2,-FMA,-FMA4,-LZCNT,-MOVBE,-RTM,-XSAVE,-XSAVEC",
			"NPY_DISABLE_CPU_FEATURES": "AVX F16C FMA3 FMA4 XOP AVX2 AVX512F AVX512CD " +
				"AVX512_KNL AVX512_KNM AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR X86_V3 X86_V4",
			"OPENSSL_ia32cap": "~0x7640180200000000:~0x742f02f0128",
		}},
		{"x86-64-v3", map[string]string{
			"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OPENBLAS_CORETYPE": "Haswell", "MKL_ENABLE_INSTRUCTIONS": "AVX2",
			"GLIBC_TUNABLES":           "glibc.cpu.hwcaps=-AVX512F,-AVX512BW,-AVX512CD,-AVX512DQ,-AVX512VL,-FMA4,-RTM,-XSAVEC",
			"NPY_DISABLE_CPU_FEATURES": "FMA4 XOP AVX512F AVX512CD AVX512_KNL AVX512_KNM AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR X86_V4",
			"OPENSSL_ia32cap":          "~0x4200080200000000:~0x742f02f0000",
		}},
		{"x86-64-v4", map[string]string{
			"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "OPENBLAS_CORETYPE": "SkylakeX", "MKL_ENABLE_INSTRUCTIONS": "AVX512",
			"GLIBC_TUNABLES":           "glibc.cpu.hwcaps=-FMA4,-RTM,-XSAVEC",
			"NPY_DISABLE_CPU_FEATURES": "FMA4 XOP AVX512_KNL AVX512_KNM AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR",
			"OPENSSL_ia32cap":          "~0x4200080200000000:~0x742202c0000",
		}},
	} {
		t.Run(tt.set, func(t *testing.T) {
			s, err := Parse(tt.set)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, s.Mask()); diff != "" {
				t.Errorf("mask (-want +got):\n%s", diff)
			}
		})
	}
}
