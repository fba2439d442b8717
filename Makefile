# Two commands do all: `make demo` and `make test`. Both need root for what they do to processes, and Go.

SHELL := /bin/bash
export THAW_DEPS ?= $(CURDIR)/.deps
# Debian packages of the host: what set-up, demo and tests run.
DEMO_PACKAGES := runc mmdebstrap iproute2 curl
TEST_PACKAGES := gcc libc6-dev podman python3-pytest python3-mypy
# The compiler of the BPF program, by its version: another one would generate other bytes. Debian 12 has it.
GENERATE_PACKAGES := clang-14 llvm-14 libbpf-dev

.PHONY: build deps bench-deps test-deps demo demo-large demo-criu bench bench-smoke test test-race zdtm lint fuzz generate generate-check clean clean-deps

build: ## build bin/thawd, bin/thaw and bin/uffdbench
	go build -o bin/ ./cmd/...

deps: ## system packages, CRIU and the root file system, once
	scripts/setup-system.sh $(DEMO_PACKAGES)
	scripts/setup-criu.sh
	scripts/setup-rootfs.sh

bench-deps: deps
	scripts/setup-s3.sh

test-deps: deps ## and what the tests need besides
	scripts/setup-system.sh $(TEST_PACKAGES)
	scripts/setup-s3.sh

demo: deps build ## deploy a sentence embedder and call it from nothing: cold, and restored; out/demo/report.json
	go run ./bench/functions/demo -out out/demo $(DEMO_FLAGS)

demo-criu: deps build ## freeze and thaw a MiniLM embedder; compare with cold start and CRIU; out/demo-criu/report.json
	go run ./bench/demo -workload minilm -out out/demo-criu $(DEMO_FLAGS)

demo-large: deps build ## the same with a 1.3 GB transformer; out/demo-large/report.json
	go run ./bench/demo -workload large -out out/demo-large $(DEMO_FLAGS)

bench: bench-deps build ## all benchmarks beside their baselines, 20 minutes on two cores; out/bench/report.html (docs/benchmarks.md)
	scripts/bench.sh

bench-smoke: bench-deps build ## each benchmark once, tiny: whether they work, not how fast
	scripts/bench.sh --quick

test: ## all tests, the privileged ones too, with a summary
	scripts/test.sh

test-race: ## the tests of what runs concurrently, under the race detector
	scripts/test.sh -race ./uffd/... ./pagestore/... ./restore/... ./control/... ./daemon/... ./function/... ./internal/...

zdtm: deps build ## CRIU's own tests of lazy restores, with thawd in the place of its daemon (ZDTM_FLAGS="-f h tls"); half an hour
	scripts/zdtm.sh $(ZDTM_FLAGS)

lint: ## go vet, gofmt, golangci-lint; mypy on the Python package where it is installed
	scripts/lint.sh

fuzz: ## every fuzz target for a minute (FUZZTIME=1m)
	scripts/fuzz.sh $(or $(FUZZTIME),1m)

generate: ## the BPF program of the tracer, and the command line reference, which is made from the programs
	scripts/setup-system.sh $(GENERATE_PACKAGES)
	go generate ./restore/tracer
	go test ./cmd/thaw ./cmd/thawd ./cmd/uffdbench -run Reference -update

generate-check: generate ## fails if what is generated is not what is committed
	git diff --exit-code -- docs/cli restore/tracer/program_bpfel.go restore/tracer/program_bpfel.o

clean: ## what was built
	rm -rf bin out

clean-deps: ## everything that set-up made below .deps (system packages stay)
	scripts/clean-deps.sh
