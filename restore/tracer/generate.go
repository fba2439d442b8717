package tracer

// The compiler is named by its version, so that everybody generates the same bytes: CI compares. The headers of libbpf
// come from Debian's libbpf-dev.
//
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package tracer -tags linux program bpf/tracer.c -- -O2 -Wall -Wextra -Werror -Wno-unused-parameter -mcpu=v3
