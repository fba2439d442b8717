package restores

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"thaw/bench/lab"
	"thaw/bench/result"
	"thaw/bench/scenario"
	"thaw/restore/tracer"
)

var (
	// wholeRun is the time from the start of the program to its last answer.
	wholeRun = result.Metric{Name: "run", Unit: "ns"}
	// processCPU is what the process itself took of the processors, the program in the kernel included.
	processCPU = result.Metric{Name: "process-cpu", Unit: "ns"}
	// firstTouches is how many touches were recorded.
	firstTouches = result.Metric{Name: "touches", Unit: "touches", Higher: true}
	// tracerStart is how long it took until the tracer was ready to be told of the process.
	tracerStart = result.Metric{Name: "tracer-start", Unit: "ns"}
	// tracerChoose is how long it took to tell it.
	tracerChoose = result.Metric{Name: "tracer-choose", Unit: "ns"}
)

// The subjects of the scenario.
const (
	traced   = "traced"
	untraced = "untraced"
)

// tracedRequests is how often the process is asked.
const tracedRequests = 3

func tracerScenario() scenario.Scenario {
	goal := func(workload string) scenario.Goal {
		side := func(subject string) scenario.Side {
			return scenario.Side{Subject: subject, Metric: wholeRun.Name, Figure: result.Middle}
		}
		floor := side(untraced)
		return scenario.Goal{
			Name: "run over untraced", Case: result.P("size", workload), Ours: side(traced), Floor: &floor,
			FloorIs: "the same run of the same program that nobody records", Want: 1.05,
		}
	}
	return scenario.Scenario{
		Name: "tracer",
		Summary: "A real program from its start to its third answer, with each of its first touches recorded and without. Its start is when " +
			"most pages are touched for the first time. The tracer is ready before, as it is where thawd records a restore.",
		Charts: []result.Chart{
			{Kind: result.OverParam, Title: "Run by program", Metric: wholeRun.Name, X: "size"},
		},
		Goals:   []scenario.Goal{goal("small"), goal("medium"), goal("minilm")},
		Prepare: prepareTracer,
	}
}

func prepareTracer(ctx context.Context, env *scenario.Env) (*scenario.Plan, error) {
	parts, err := lab.FindParts(env.CRIU)
	if errors.Is(err, lab.ErrPartMissing) {
		return &scenario.Plan{LeftOut: true, Notes: []string{fmt.Sprintf("Left out: %v.", err)}}, nil
	}
	if err != nil {
		return nil, err
	}
	info, err := tracer.Probe()
	if errors.Is(err, tracer.ErrNotSupported) || errors.Is(err, tracer.ErrNotPermitted) {
		return &scenario.Plan{LeftOut: true, Notes: []string{fmt.Sprintf("Left out: %v.", err)}}, nil
	}
	if err != nil {
		return nil, err
	}
	plan := &scenario.Plan{Notes: []string{fmt.Sprintf("Touches were noticed by: %v.", info.Point)}}
	for _, name := range scenario.Pick(env, []string{"small", "medium", "minilm"}, []string{"small"}) {
		params := result.P("size", name)
		if !env.Wants(params, traced) && !env.Wants(params, untraced) {
			continue
		}
		w, err := lab.FindWorkload(name)
		if err != nil {
			return nil, err
		}
		p, err := newProgram(&parts, &w)
		if err != nil {
			return nil, err
		}
		env.Step(w.Title)
		// The first one reads its files from the disk.
		if _, err := p.untraced(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		plan.Trials = append(plan.Trials,
			scenario.Trial{Params: params, Subject: traced, Run: p.traced}, scenario.Trial{Params: params, Subject: untraced, Run: p.untraced})
	}
	return plan, nil
}

// A program is one that is run from its start.
type program struct {
	parts   *lab.Parts
	text    string // in Python
	args    []string
	request []byte
}

func newProgram(parts *lab.Parts, w *lab.Workload) (*program, error) {
	text, err := os.ReadFile(filepath.Join(parts.Examples, w.Script))
	if err != nil {
		return nil, err
	}
	line, err := json.Marshal(map[string][]string{"sentences": w.Request.Sentences})
	return &program{parts, string(text), w.Args, append(line, '\n')}, err
}

// A started is a program that runs, or waits for its first line to begin.
type started struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer
}

// start starts a shell in the root file system that becomes the program when a line comes. The caller calls end or kill.
func (p *program) start(ctx context.Context) (*started, error) {
	s := &started{cmd: exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", `read -r _ && exec python3 -c "$0" "$@"`, p.text}, p.args...)...)}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: p.parts.Rootfs}
	s.cmd.Dir = "/"
	s.cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HF_HUB_OFFLINE=1", "HOME=/tmp", "LANG=C.UTF-8", "OMP_WAIT_POLICY=PASSIVE"}
	s.cmd.Stderr = &s.stderr
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.out = bufio.NewReaderSize(out, 64<<10)
	return s, s.cmd.Start()
}

// answers makes the program run and returns how long it took to its last answer.
func (s *started) answers(request []byte) (time.Duration, error) {
	start := time.Now()
	if _, err := s.in.Write(append([]byte("\n"), bytes.Repeat(request, tracedRequests)...)); err != nil {
		return 0, err
	}
	for ready := false; !ready; {
		line, err := s.out.ReadBytes('\n')
		if err != nil {
			return 0, fmt.Errorf("wait until it is ready: %w", err)
		}
		ready = bytes.Contains(line, []byte(`"ready"`)) // libraries may say something before
	}
	for n := range tracedRequests {
		line, err := s.out.ReadBytes('\n')
		if err != nil {
			return 0, fmt.Errorf("read answer %d: %w", n, err)
		}
		if !bytes.Contains(line, []byte(`"embeddings"`)) {
			return 0, fmt.Errorf("answer %d is %.200q", n, line)
		}
	}
	return time.Since(start), nil
}

// end lets the program end, and returns what it took of the processors.
func (s *started) end() (time.Duration, error) {
	s.in.Close()
	// What it still says would otherwise break its pipe.
	_, copyErr := io.Copy(io.Discard, s.out)
	if err := errors.Join(copyErr, s.cmd.Wait()); err != nil {
		return 0, fmt.Errorf("%w: %s", err, bytes.TrimSpace(s.stderr.Bytes()))
	}
	return s.cmd.ProcessState.UserTime() + s.cmd.ProcessState.SystemTime(), nil
}

// kill ends the program at once.
func (s *started) kill(err error) error {
	s.cmd.Process.Kill()
	s.cmd.Wait()
	return fmt.Errorf("%w: %s", err, bytes.TrimSpace(s.stderr.Bytes()))
}

func (p *program) untraced(ctx context.Context) ([]result.Observation, error) {
	s, err := p.start(ctx)
	if err != nil {
		return nil, err
	}
	return p.observe(s)
}

// observe runs what was started to its end.
func (p *program) observe(s *started) ([]result.Observation, error) {
	took, err := s.answers(p.request)
	if err != nil {
		return nil, s.kill(err)
	}
	cpu, err := s.end()
	return []result.Observation{one(wholeRun, float64(took)), one(processCPU, float64(cpu))}, err
}

func (p *program) traced(ctx context.Context) (_ []result.Observation, err error) {
	begin := time.Now()
	client, err := tracer.Start(ctx, tracer.Target{Later: true}, &tracer.Options{Command: []string{p.parts.Thaw, "tracer"}})
	if err != nil {
		return nil, err
	}
	ready := time.Since(begin)
	defer func() { err = errors.Join(err, client.Close()) }()
	recorded := record(client)
	s, err := p.start(ctx)
	if err != nil {
		client.Stop()
		_, recordErr := recorded()
		return nil, errors.Join(err, recordErr)
	}
	begin = time.Now()
	_, err = client.Choose(ctx, s.cmd.Process.Pid)
	told := time.Since(begin)
	var seen []result.Observation
	if err != nil {
		err = s.kill(err)
	} else {
		seen, err = p.observe(s)
	}
	client.Stop()
	touches, recordErr := recorded()
	return append(seen, one(firstTouches, float64(touches)), one(tracerStart, float64(ready)), one(tracerChoose, float64(told))), errors.Join(err, recordErr)
}

// record makes a trace, as thawd would. What it returns waits for the end, and returns the number of touches.
func record(client *tracer.Client) (wait func() (int, error)) {
	touches := 0
	done := make(chan error, 1)
	go func() {
		t, err := tracer.Collect(context.Background(), client, "", tracer.Mappings)
		if err == nil && !t.Complete() {
			err = fmt.Errorf("%d events were lost: what was measured is not a recording", t.Lost())
		}
		touches = len(t.Touches)
		done <- err
	}()
	return func() (int, error) {
		err := <-done
		return touches, err
	}
}
