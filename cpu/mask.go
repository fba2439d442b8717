package cpu

import (
	"fmt"
	"strings"
)

// Mask returns the environment variables that keep a process to the features of s, whatever its CPU has beyond them. They have to be
// there when the process starts: each library reads its own once.
//
// glibc, numpy, OpenBLAS, oneDNN, PyTorch's own kernels and OpenSSL obey, as the tests of this package see on Debian's; MKL does so by
// its manual. Code that asks CPUID by itself (XNNPACK, gcc's __builtin_cpu_supports, Rust's is_x86_feature_detected) does not.
//
// The values depend on s alone, so that a snapshot has the same ones wherever it was taken. They are for x86.
func (s Set) Mask() map[string]string {
	return map[string]string{
		"GLIBC_TUNABLES":           s.glibcTunables(),
		"OPENSSL_ia32cap":          s.opensslCapabilities(),
		"NPY_DISABLE_CPU_FEATURES": s.numpyDisabled(),
		"ATEN_CPU_CAPABILITY":      s.best(atenCapabilities, "default"),
		"ONEDNN_MAX_CPU_ISA":       s.best(onednnISAs, "SSE41"),
		"OPENBLAS_CORETYPE":        s.best(openblasCores, "Prescott"),
		"MKL_ENABLE_INSTRUCTIONS":  s.best(mklInstructions, "SSE4_2"),
	}
}

// option is a value of an environment variable and what it takes.
type option struct {
	value string
	needs string // names of features, apart by spaces
}

// best returns the first value whose needs are in s, or lowest.
func (s Set) best(options []option, lowest string) string {
	for _, o := range options {
		if s.HasAll(New(strings.Fields(o.needs)...)) {
			return o.value
		}
	}
	return lowest
}

// avx512 is what libraries mean by AVX-512: that of the first servers that had it.
const avx512 = "avx512f avx512bw avx512cd avx512dq avx512vl fma "

// What the libraries call their choices, the best first.
var (
	// aten/src/ATen/native/DispatchStub.cpp of PyTorch 2.6. It has no word between "default" and "avx2".
	atenCapabilities = []option{{"avx512", avx512}, {"avx2", "avx2 fma"}}

	// The manual of oneDNN 3.7, "CPU Dispatcher Control". There is nothing below SSE41.
	onednnISAs = []option{
		{"AVX512_CORE_AMX", avx512 + "avx512_vnni avx512_bf16 avx512_fp16 amx_tile amx_int8 amx_bf16"},
		{"AVX512_CORE_FP16", avx512 + "avx512_vnni avx512_bf16 avx512_fp16 avx_vnni"},
		{"AVX512_CORE_BF16", avx512 + "avx512_vnni avx512_bf16"},
		{"AVX512_CORE_VNNI", avx512 + "avx512_vnni"},
		{"AVX512_CORE", avx512},
		{"AVX2_VNNI", "avx2 fma avx_vnni"},
		{"AVX2", "avx2 fma"},
		{"AVX", "avx"},
	}

	// driver/others/dynamic.c of OpenBLAS 0.3.29. Prescott takes SSE3; there is nothing lower.
	openblasCores = []option{
		{"SkylakeX", avx512}, {"Haswell", "avx2 fma"}, {"Sandybridge", "avx"}, {"Nehalem", "sse4_2"}, {"Core2", "ssse3"},
	}

	// The manual of oneMKL, "Instruction Set Specific Dispatching on Intel Architectures".
	mklInstructions = []option{{"AVX512", avx512}, {"AVX2", "avx2 fma"}, {"AVX", "avx"}}
)

// glibcNames are the features that glibc hides on request, in its names: sysdeps/x86/cpu-tunables.c, glibc 2.36 and 2.41. It passes over
// names that it does not know, such as those with "_Usable" at the end that glibc 2.32 and older had.
var glibcNames = []option{
	{"AVX", "avx"}, {"AVX2", "avx2"}, {"AVX512F", "avx512f"}, {"AVX512BW", "avx512bw"}, {"AVX512CD", "avx512cd"},
	{"AVX512DQ", "avx512dq"}, {"AVX512VL", "avx512vl"}, {"BMI1", "bmi1"}, {"BMI2", "bmi2"}, {"FMA", "fma"}, {"FMA4", "fma4"},
	{"LZCNT", "abm"}, {"MOVBE", "movbe"}, {"POPCNT", "popcnt"}, {"RTM", "rtm"}, {"SSE4_1", "sse4_1"}, {"SSE4_2", "sse4_2"},
	{"SSSE3", "ssse3"}, {"XSAVE", "xsave"}, {"XSAVEC", "xsavec"},
}

// glibcTunables hides what is not in s from glibc: from its choice of memcpy and the like, and from the dynamic loader, which looks
// for libraries in glibc-hwcaps/x86-64-v3 and saves registers with XSAVEC.
func (s Set) glibcTunables() string {
	var off []string
	for _, o := range glibcNames {
		if !s.Has(o.needs) {
			off = append(off, "-"+o.value)
		}
	}
	return "glibc.cpu.hwcaps=" + strings.Join(off, ",")
}

// numpyNames are what numpy has code for: its option cpu-dispatch in numpy 2.2, and the names of whole levels that numpy 2.4 has in their
// place. Hiding a feature does not hide what builds upon it, so all are named. Those of x86-64-v2 and below must not be: numpy fails to
// import if a feature is disabled that it was compiled for. Names that it does not know it passes over.
var numpyNames = []option{
	{"AVX", "avx"}, {"F16C", "f16c"}, {"FMA3", "fma"}, {"FMA4", "fma4"}, {"XOP", "xop"}, {"AVX2", "avx2"},
	{"AVX512F", "avx512f"}, {"AVX512CD", "avx512cd"},
	{"AVX512_KNL", "avx512f avx512cd avx512er avx512pf"},
	{"AVX512_KNM", "avx512f avx512cd avx512er avx512pf avx512_4fmaps avx512_4vnniw avx512_vpopcntdq"},
	{"AVX512_SKX", avx512},
	{"AVX512_CLX", avx512 + "avx512_vnni"},
	{"AVX512_CNL", avx512 + "avx512ifma avx512vbmi"},
	{"AVX512_ICL", avx512 + "avx512_vnni avx512ifma avx512vbmi avx512_vbmi2 avx512_bitalg avx512_vpopcntdq"},
	{"AVX512_SPR", avx512 + "avx512_vnni avx512ifma avx512vbmi avx512_vbmi2 avx512_bitalg avx512_vpopcntdq avx512_fp16"},
	{"X86_V3", "abm avx avx2 bmi1 bmi2 f16c fma movbe"}, {"X86_V4", avx512},
}

func (s Set) numpyDisabled() string {
	var off []string
	for _, o := range numpyNames {
		if !s.HasAll(New(strings.Fields(o.needs)...)) {
			off = append(off, o.value)
		}
	}
	return strings.Join(off, " ")
}

// capability is a bit of the two words with which OpenSSL describes an x86 to itself: OPENSSL_ia32cap(3).
type capability struct {
	feature string
	bit     uint
}

var opensslWords = [2][]capability{
	{ // of CPUID leaf 1: EDX, then ECX from bit 32
		{"pni", 32 + 0}, {"pclmulqdq", 32 + 1}, {"ssse3", 32 + 9}, {"xop", 32 + 11}, {"fma", 32 + 12}, {"sse4_1", 32 + 19}, {"sse4_2", 32 + 20},
		{"movbe", 32 + 22}, {"popcnt", 32 + 23}, {"aes", 32 + 25}, {"xsave", 32 + 26}, {"avx", 32 + 28}, {"f16c", 32 + 29}, {"rdrand", 32 + 30},
	},
	{ // of CPUID leaf 7: EBX, then ECX from bit 32
		{"bmi1", 3}, {"avx2", 5}, {"bmi2", 8}, {"avx512f", 16}, {"avx512dq", 17}, {"rdseed", 18}, {"adx", 19}, {"avx512ifma", 21},
		{"avx512cd", 28}, {"sha_ni", 29}, {"avx512bw", 30}, {"avx512vl", 31}, {"avx512vbmi", 32 + 1}, {"avx512_vbmi2", 32 + 6},
		{"gfni", 32 + 8}, {"vaes", 32 + 9}, {"vpclmulqdq", 32 + 10},
	},
}

// opensslCapabilities clears the bits of what is not in s.
func (s Set) opensslCapabilities() string {
	var words []string
	for _, word := range opensslWords {
		var off uint64
		for _, c := range word {
			if !s.Has(c.feature) {
				off |= 1 << c.bit
			}
		}
		words = append(words, fmt.Sprintf("~%#x", off))
	}
	return strings.Join(words, ":")
}
