package instance

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"golang.org/x/sys/unix"

	"thaw/function/runner"
)

// Import has the runner of a started instance import modules, for a template. It returns how long that took.
func (i *Instance) Import(ctx context.Context, modules []string) (time.Duration, error) {
	if err := i.need("import in", StateStarted); err != nil {
		return 0, err
	}
	s, err := i.shell.client.Import(ctx, modules)
	return time.Duration(s * float64(time.Second)), i.runnerError(err)
}

// LoadOptions say what object the runner makes.
type LoadOptions struct {
	// File is the path of the module below the code folder, Object the name of the class or function in it.
	File, Object string
	// Parameters are the class's, as a JSON object. Nil: it has none.
	Parameters json.RawMessage
	// Env changes the environment before the module is imported: an instance of a template has the template's. A nil value takes a variable away.
	Env map[string]*string
}

// Load has the runner make its object, in an instance that was started, or restored from a template.
func (i *Instance) Load(ctx context.Context, o LoadOptions) (*runner.Loaded, error) {
	if err := i.need("load in", StateStarted, StatePrepared); err != nil {
		return nil, err
	}
	open := i.shell.spec.Open
	loaded, err := i.shell.client.Load(ctx, &runner.Load{
		File: codeTarget + "/" + o.File, Object: o.Object, Parameters: o.Parameters, Env: o.Env,
		Network: open && i.shell.spec.Network, GPU: open && len(i.shell.devices) > 0,
	})
	if err != nil {
		return nil, i.runnerError(err)
	}
	i.mu.Lock()
	i.fresh = true
	i.mu.Unlock()
	i.move(StateLoaded)
	return loaded, nil
}

// Prepare has the runner get ready to be frozen. A template is prepared without an object.
func (i *Instance) Prepare(ctx context.Context) (*runner.Prepared, error) {
	if err := i.need("prepare", StateStarted, StateLoaded); err != nil {
		return nil, err
	}
	p, err := i.shell.client.Prepare(ctx)
	if err != nil {
		return nil, i.runnerError(err)
	}
	i.move(StatePrepared)
	return p, nil
}

// BootOptions say under what circumstances an instance serves.
type BootOptions struct {
	// Env changes the runner's environment: secrets, and what differs from instance to instance. A nil value takes a variable away.
	Env map[string]*string
	// CPUs are those that the runner may use. Nil: those that this process may use.
	CPUs []int
	// KeepRandom leaves random generators as they were frozen. For tests.
	KeepRandom bool
	// FrozenAt is when the snapshot was frozen. Zero: nobody knows, or it was not.
	FrozenAt time.Time
}

// Boot gives the instance its network and devices, and has the runner get ready for calls.
func (i *Instance) Boot(ctx context.Context, o BootOptions) (*runner.Ready, error) {
	if err := i.need("boot", StateLoaded, StatePrepared); err != nil {
		return nil, err
	}
	s := i.shell
	if !s.spec.Open && (!i.Restored() || s.spec.Detached) {
		if err := errors.Join(s.connect(ctx), s.makeDevices(i.container.PID)); err != nil {
			return nil, fmt.Errorf("boot instance %s: %w", s.id, err)
		}
	}
	ready, err := s.client.Boot(ctx, i.bootCommand(&o))
	if err != nil {
		return nil, i.runnerError(err)
	}
	i.move(StateServing)
	return ready, nil
}

func (i *Instance) bootCommand(o *BootOptions) *runner.Boot {
	var generation [16]byte
	_, _ = rand.Read(generation[:]) // never fails
	i.mu.Lock()
	restored := i.Restored() && !i.fresh
	i.mu.Unlock()
	b := &runner.Boot{
		Restored: restored, Generation: hex.EncodeToString(generation[:]), Env: make(map[string]*string),
		Hostname: i.shell.hostname(), CPUs: o.CPUs, KeepRandom: o.KeepRandom,
	}
	if _, own := i.shell.spec.Env[HideGPUs]; !own && !i.shell.spec.Open {
		b.Env[HideGPUs] = i.shell.spec.imageVariable(HideGPUs)
	}
	maps.Copy(b.Env, o.Env)
	if b.CPUs == nil {
		b.CPUs = ownCPUs()
	}
	if !o.FrozenAt.IsZero() {
		b.FrozenAt = float64(o.FrozenAt.UnixMicro()) / 1e6
	}
	return b
}

// ownCPUs returns the CPUs that this process may use, nil if the kernel does not say.
func ownCPUs() []int {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil
	}
	var cpus []int
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}

// Call calls a method. Returns a [*runner.CallError] if it fails; the instance goes on then.
func (i *Instance) Call(ctx context.Context, c *runner.Call) (*runner.Result, error) {
	if err := i.need("call", StateServing); err != nil {
		return nil, err
	}
	defer i.marks.call()()
	r, err := i.shell.client.Call(ctx, c)
	return r, i.runnerError(err)
}

// HTTP puts a request to an endpoint. Returns a [*runner.CallError] if it fails; the instance goes on then.
func (i *Instance) HTTP(ctx context.Context, endpoint string, r *runner.Request) (*runner.Response, error) {
	if err := i.need("call", StateServing); err != nil {
		return nil, err
	}
	defer i.marks.call()()
	resp, err := i.shell.client.HTTP(ctx, endpoint, r)
	return resp, i.runnerError(err)
}

// Stop has the runner finish its calls and run its exit hooks. When the context ends before, the container is killed, and the error says so;
// calls that had no answer fail. Close is still to be called.
func (i *Instance) Stop(ctx context.Context) error {
	if err := i.need("stop", StateStarted, StateLoaded, StatePrepared, StateServing); err != nil {
		return err
	}
	i.move(StateStopped)
	i.marks.end()
	err := i.shell.client.Stop(ctx)
	if err == nil {
		// It closes its output when it ends.
		select {
		case <-i.shell.client.Ended():
			return nil
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	if delErr := i.container.Delete(context.WithoutCancel(ctx)); delErr != nil {
		err = errors.Join(err, delErr)
	}
	return fmt.Errorf("stop instance %s: it was killed: %w", i.ID(), i.runnerError(err))
}
