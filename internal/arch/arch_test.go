// Package arch holds the project's structure to what docs/architecture.md says of it.
package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// mayImport says, for each package (or folder, with /...), which packages of the project it may import directly.
// A package that is not listed fails the test: a new package begins with its arrows.
var mayImport = map[string][]string{
	"thaw/uffd":                                       {},
	"thaw/uffd/uffdtest":                              {"thaw/uffd", "thaw/internal/..."},
	"thaw/internal/...":                               {"thaw/internal/...", "thaw/uffd"},
	"thaw/internal/pagehash":                          {},
	"thaw/pagestore":                                  {"thaw/pagestore/internal/...", "thaw/internal/durable", "thaw/internal/pagehash"},
	"thaw/pagestore/blob":                             {"thaw/internal/durable"},
	"thaw/pagestore/blob/blobtest":                    {"thaw/pagestore/blob"},
	"thaw/pagestore/blob/objectstore":                 {"thaw/pagestore/blob"},
	"thaw/pagestore/blob/objectstore/objectstoretest": {"thaw/internal/..."},
	"thaw/pagestore/fetch":                            {},
	"thaw/pagestore/tier":                             {"thaw/pagestore", "thaw/pagestore/blob", "thaw/pagestore/fetch", "thaw/pagestore/internal/...", "thaw/internal/ownthread"},
	"thaw/pagestore/internal/...":                     {"thaw/pagestore/internal/...", "thaw/internal/durable", "thaw/internal/pagehash"},
	"thaw/restore":                                    {"thaw/uffd"},
	"thaw/restore/criu":                               {"thaw/restore", "thaw/restore/criu/internal/...", "thaw/uffd", "thaw/internal/..."},
	"thaw/restore/criu/internal/...":                  {"thaw/restore", "thaw/uffd", "thaw/internal/..."},
	"thaw/restore/guard":                              {"thaw/uffd", "thaw/internal/..."},
	"thaw/restore/tracer":                             {"thaw/restore/tracer/trace", "thaw/internal/..."},
	"thaw/restore/tracer/trace":                       {},
	"thaw/restore/workingset":                         {"thaw/restore/tracer/trace"},
	"thaw/restore/criu/lazypages":                     {"thaw/restore", "thaw/restore/criu", "thaw/uffd", "thaw/internal/..."},
	"thaw/checkpoint":                                 {},
	"thaw/doctor":                                     {"thaw/uffd", "thaw/checkpoint", "thaw/restore/tracer/..."},
	"thaw/control":                                    {},
	"thaw/python":                                     {},
	"thaw/daemon":                                     {"thaw/control", "thaw/pagestore", "thaw/restore/...", "thaw/uffd", "thaw/internal/..."},
	"thaw/node":                                       {"thaw/control", "thaw/pagestore", "thaw/pagestore/blob", "thaw/pagestore/blob/...", "thaw/pagestore/fetch", "thaw/pagestore/tier"},
	"thaw/snapshot":                                   {"thaw/checkpoint", "thaw/control", "thaw/cpu", "thaw/pagestore", "thaw/restore/criu", "thaw/restore/workingset"},
	"thaw/cpu":                                        {},
	"thaw/function/version":                           {"thaw/cpu"},
	"thaw/function/describe":                          {"thaw/function/version"},
	"thaw/function/sdk":                               {"thaw/function/version", "thaw/internal/durable"},
	"thaw/function/registry":                          {"thaw/cpu", "thaw/function/version", "thaw/internal/durable"},
	"thaw/function":                                   {"thaw/cpu", "thaw/function/...", "thaw/checkpoint", "thaw/pagestore", "thaw/internal/..."},
	"thaw/function/gateway":                           {"thaw/function", "thaw/function/...", "thaw/control"},
	"thaw/function/runner":                            {},
	"thaw/function/rootfs":                            {"thaw/checkpoint", "thaw/internal/durable"},
	"thaw/function/network":                           {"thaw/internal/ownthread"},
	"thaw/pagestore/blob/peer":                        {"thaw/pagestore/blob", "thaw/internal/durable"},
	"thaw/pagestore/blob/placement":                   {},
	"thaw/function/instance": {"thaw/cpu", "thaw/function/runner", "thaw/function/rootfs", "thaw/function/network", "thaw/snapshot", "thaw/checkpoint",
		"thaw/control", "thaw/pagestore", "thaw/internal/ownthread"},
	"thaw/bench/demo/...":       {"thaw/bench/...", "thaw/checkpoint", "thaw/control", "thaw/internal/..."},
	"thaw/bench/result":         {},
	"thaw/bench/htmlreport":     {"thaw/bench/result"},
	"thaw/bench/fleet":          {"thaw/bench/htmlreport", "thaw/bench/result", "thaw/pagestore/blob/placement"},
	"thaw/bench/host":           {"thaw/bench/result", "thaw/internal/..."},
	"thaw/bench/scenario":       {"thaw/bench/result", "thaw/checkpoint"},
	"thaw/bench/restores":       {"thaw/internal/pagehash", "thaw/bench/lab", "thaw/bench/lab/fleet", "thaw/bench/result", "thaw/bench/scenario", "thaw/control", "thaw/restore/tracer"},
	"thaw/bench/functions/demo": {"thaw/bench/..."},
	"thaw/bench/functions":      {"thaw/bench/lab", "thaw/bench/result", "thaw/bench/scenario", "thaw/checkpoint", "thaw/control", "thaw/function/...", "thaw/pagestore"},
	"thaw/bench/baseline":       {"thaw/checkpoint", "thaw/uffd", "thaw/internal/..."},
	"thaw/bench/lab/fleet":      {"thaw/bench/lab", "thaw/checkpoint", "thaw/control", "thaw/pagestore/...", "thaw/internal/..."},
	"thaw/bench/lab":            {"thaw/bench/result", "thaw/checkpoint", "thaw/control", "thaw/internal/..."},
	"thaw/bench/privaterun":     {},
	"thaw/bench/suite":          {"thaw/bench/...", "thaw/pagestore", "thaw/restore", "thaw/uffd/...", "thaw/internal/..."},
	"thaw/cmd/...":              {"thaw/..."},
}

type pkg struct {
	ImportPath string
	Imports    []string
}

func TestImportsPointOneWay(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "thaw/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	n := 0
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; n++ {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		allowed, ok := rule(p.ImportPath)
		if !ok {
			t.Errorf("%s is in no rule: say in mayImport, and in docs/architecture.md, what it may import", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			ours := imp == "thaw" || strings.HasPrefix(imp, "thaw/")
			if ours && !slices.ContainsFunc(allowed, func(a string) bool { return match(a, imp) }) {
				t.Errorf("%s imports %s: that arrow points the wrong way", p.ImportPath, imp)
			}
		}
	}
	if n < 10 {
		t.Errorf("go list named only %d packages: the test is not looking at the project", n)
	}
}

// onlyImporter says who alone may import a module from outside, by the beginning of its packages' paths.
var onlyImporter = map[string][]string{
	"github.com/cilium/ebpf":          {"thaw/restore/tracer"},
	"github.com/vishvananda/netlink":  {"thaw/function/network", "thaw/bench/lab/fleet"},
	"github.com/google/nftables":      {"thaw/function/network"},
	"github.com/minio/minio-go/v7":    {"thaw/pagestore/blob/objectstore"},
	"github.com/hashicorp/memberlist": {"thaw/pagestore/blob/placement"},
}

func TestModulesWithOneImporterHaveNoOther(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{$p := .ImportPath}}{{range .Imports}}{{$p}} {{.}}{{"\n"}}{{end}}`, "thaw/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := make(map[string]bool)
	for line := range strings.Lines(string(out)) {
		importer, imp, _ := strings.Cut(strings.TrimSpace(line), " ")
		for module, only := range onlyImporter {
			if !match(module+"/...", imp) {
				continue
			}
			seen[module] = true
			if !slices.Contains(only, importer) {
				t.Errorf("%s imports %s, which only %s may", importer, imp, only)
			}
		}
	}
	for module := range onlyImporter {
		if !seen[module] {
			t.Errorf("nobody imports %s: the rule is out of date", module)
		}
	}
}

func TestUffdNeedsOnlyTheKernel(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{join .Imports "\n"}}`, "thaw/uffd").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for _, imp := range strings.Fields(string(out)) {
		if strings.Contains(imp, ".") && imp != "golang.org/x/sys/unix" {
			t.Errorf("uffd imports %s; it may use the standard library and golang.org/x/sys/unix only", imp)
		}
	}
}

// rule returns what path may import: the longest matching entry of mayImport.
func rule(path string) ([]string, bool) {
	best := ""
	for k := range mayImport {
		if match(k, path) && len(k) > len(best) {
			best = k
		}
	}
	return mayImport[best], best != ""
}

func match(pattern, path string) bool {
	if dir, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == dir || strings.HasPrefix(path, dir+"/")
	}
	return pattern == path
}
