// Command demo deploys a sentence embedder, calls it from nothing again and again, and prints how long each call waited: cold, while a snapshot
// is taken behind the first calls, and restored. It writes what it measured to report.json in the output folder.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"thaw/bench/functions"
	"thaw/bench/host"
	"thaw/bench/lab"
	"thaw/bench/privaterun"
	"thaw/bench/result"
)

func main() {
	code, err := start()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
	}
	os.Exit(code)
}

// start runs the demo here or in a mount namespace of its own, and returns the exit code.
func start() (code int, err error) {
	out := flag.String("out", "out/demo", "folder for report.json")
	runs := flag.Int("runs", 10, "restored boots, with the page cache warm and with it dropped")
	flag.Parse()
	if os.Geteuid() != 0 {
		return 6, fmt.Errorf("this needs root, for what runc and CRIU do: run 'sudo make demo'")
	}
	code, again, err := privaterun.Enter()
	if err != nil || again {
		return max(code, boolToInt(err != nil)), err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *out, *runs); err != nil {
		return 1, err
	}
	return 0, nil
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// A boot is a call for which there was no instance.
type boot struct {
	What  string        `json:"what"`
	Cache lab.Cache     `json:"cache"`
	Boot  string        `json:"boot"`
	Took  time.Duration `json:"took_ns"` // from the arrival of the request to its answer
	W     time.Duration `json:"w_ns"`    // of a call right behind it
}

// A report is what the demo measured.
type report struct {
	Host     result.Host      `json:"host"`
	Deployed time.Duration    `json:"deployed_ns"`
	Boots    []boot           `json:"boots"`
	Frozen   string           `json:"snapshot"`
	Summary  map[string]int64 `json:"medians_ns"`
}

const (
	target   = "sentence-transformers/Embedder.embed"
	question = `{"sentences": ["How soon does a function answer that was not running?"]}`
)

func run(ctx context.Context, out string, runs int) (err error) {
	parts, err := lab.FindParts(os.Getenv("THAW_CRIU"))
	if err != nil {
		return err
	}
	// Sockets have short paths.
	dir, err := os.MkdirTemp("/var/tmp", "thaw-demo")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	p, err := functions.Open(ctx, parts, dir, 0, "--freeze-after", "2", "--idle", "500ms")
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := p.Close(); err == nil {
			err = closeErr
		}
	}()
	machine, err := host.Describe(ctx, dir, parts.CRIU)
	if err != nil {
		return err
	}
	d := &demo{place: p, report: report{Host: machine, Summary: make(map[string]int64)}}
	if err := d.measure(ctx, runs); err != nil {
		return err
	}
	d.summarize()
	return d.write(out)
}

type demo struct {
	place  *functions.Place
	report report
}

func (d *demo) measure(ctx context.Context, runs int) (err error) {
	if d.report.Deployed, err = d.place.Deploy(ctx, "embedder/app.py"); err != nil {
		return err
	}
	fmt.Printf("thaw deploy examples/embedder/app.py     %v\n", d.report.Deployed.Round(time.Millisecond))
	fmt.Printf("thaw call %s, each time when no instance is left:\n", target)
	for range 2 {
		if err := d.call(ctx, "cold boot", lab.Warm); err != nil {
			return err
		}
	}
	fmt.Println("  a snapshot is taken behind the calls ...")
	if d.report.Frozen, err = d.place.Snapshot(ctx, "sentence-transformers"); err != nil {
		return err
	}
	fmt.Printf("  snapshot %s\n", d.report.Frozen)
	for _, cache := range lab.Caches() {
		for range runs {
			if cache == lab.Dropped {
				if err := lab.DropCaches(); err != nil {
					return err
				}
			}
			if err := d.call(ctx, "restored boot", cache); err != nil {
				return err
			}
		}
	}
	return nil
}

// call calls once from nothing and once more, and waits until nothing is left.
func (d *demo) call(ctx context.Context, what string, cache lab.Cache) error {
	if err := d.place.Empty(ctx); err != nil {
		return err
	}
	a, err := d.place.Call(ctx, target, question)
	if err != nil {
		return err
	}
	again, err := d.place.Call(ctx, target, question)
	if err != nil {
		return err
	}
	b := boot{what, cache, string(a.Boot), seconds(a.Took), seconds(again.Took)}
	d.report.Boots = append(d.report.Boots, b)
	fmt.Printf("  %-14s %-13s %10v   (%s; a call right behind it %v)\n", what, "cache "+string(cache), b.Took.Round(time.Millisecond), b.Boot, b.W.Round(100*time.Microsecond))
	return nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// summarize takes the medians, of boots that were what they should be.
func (d *demo) summarize() {
	took := make(map[string][]time.Duration)
	for _, b := range d.report.Boots {
		took[b.Boot+" "+string(b.Cache)] = append(took[b.Boot+" "+string(b.Cache)], b.Took)
	}
	for name, all := range took {
		slices.Sort(all)
		d.report.Summary[name] = int64(all[len(all)/2])
	}
	cold := time.Duration(d.report.Summary["cold warm"])
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nmedians\tfrom request to response\ttimes faster than cold")
	for _, name := range []string{"cold warm", "template warm", "restored warm", "restored dropped"} {
		if m := time.Duration(d.report.Summary[name]); m > 0 {
			fmt.Fprintf(w, "%s\t%v\t%.1f\n", name, m.Round(time.Millisecond), float64(cold)/float64(m))
		}
	}
	w.Flush()
	fmt.Println("For comparison, what a platform with memory snapshots says of its embedder: 14 s and 4.8 s, 2.9 times faster.")
}

func (d *demo) write(out string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(d.report, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(out, "report.json")
	fmt.Println("report:", path)
	return os.WriteFile(path, append(data, '\n'), 0o644)
}
