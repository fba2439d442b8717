package function

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"thaw/cpu"
	"thaw/function/instance"
	"thaw/function/registry"
	"thaw/function/rootfs"
	"thaw/function/runner"
	"thaw/function/version"
	"thaw/pagestore"
)

// A Host is where instances live: an instance.Host, by [On].
type Host interface {
	Start(ctx context.Context, spec instance.Spec) (Instance, error)
	Restore(ctx context.Context, spec instance.Spec, name pagestore.Name) (Instance, error)
	RemoveSnapshot(ctx context.Context, name pagestore.Name) error
}

// An Instance is what package instance has under this name.
type Instance interface {
	ID() string
	PID() int
	Ended() <-chan struct{}
	Session() string
	Lost(ctx context.Context) error

	Import(ctx context.Context, modules []string) (time.Duration, error)
	Load(ctx context.Context, o instance.LoadOptions) (*runner.Loaded, error)
	Prepare(ctx context.Context) (*runner.Prepared, error)
	Freeze(ctx context.Context, o instance.FreezeOptions) (*instance.FreezeReport, error)
	Boot(ctx context.Context, o instance.BootOptions) (*runner.Ready, error)
	Call(ctx context.Context, c *runner.Call) (*runner.Result, error)
	HTTP(ctx context.Context, endpoint string, r *runner.Request) (*runner.Response, error)
	Stop(ctx context.Context) error
	Close() error
}

// On returns an instance.Host as a Host.
func On(h *instance.Host) Host { return realHost{h} }

type realHost struct{ *instance.Host }

func (h realHost) Start(ctx context.Context, spec instance.Spec) (Instance, error) {
	i, err := h.Host.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	return i, nil
}

func (h realHost) Restore(ctx context.Context, spec instance.Spec, name pagestore.Name) (Instance, error) {
	i, err := h.Host.Restore(ctx, spec, name)
	if err != nil {
		return nil, err
	}
	return i, nil
}

// Defaults of [Options].
const (
	DefaultFreezeAfter  = 2
	DefaultIdle         = 5 * time.Minute
	DefaultMaxInstances = 64
	DefaultFailures     = 3
	DefaultBootPatience = 10 * time.Minute
	DefaultStopPatience = 30 * time.Second
)

// Options say how a [Server] runs functions.
type Options struct {
	// Registry has the functions, Host runs them. Required.
	Registry *registry.Registry
	Host     Host

	// OpenRoot opens the root file system of a version. It is called once for each of them. Required.
	OpenRoot func(version.Root) (*rootfs.Root, error)

	// CPU is this host's. Required.
	CPU *cpu.Host

	// Namespace of the page store is where snapshots go. Its packs are what instances see of the store, so it is a tenant's. Default: the store's default.
	Namespace string

	// FreezeAfter is how many cold boots a pool has before the first freeze. Default DefaultFreezeAfter; negative: nothing is frozen.
	FreezeAfter int

	// Idle is how long an instance that nobody calls is kept, unless its function says it. Default DefaultIdle.
	Idle time.Duration

	// MaxInstances bounds the instances of a pool that boot or serve, Boots those of all pools that boot at the same time. Neither counts
	// instances that are being stopped or frozen. Defaults: DefaultMaxInstances, and two for each CPU.
	MaxInstances, Boots int

	// Failures is how many restores in a row may fail before a snapshot is set aside. Those count, too, that come up and end by themselves
	// before they have finished a call; the row ends with a call that was finished. Default DefaultFailures.
	Failures int

	// BootPatience is how long a start may take, or a restore, until the instance is ready; before a freeze as long again for the warm-up and
	// the hooks. Default DefaultBootPatience.
	BootPatience time.Duration

	// StopPatience is how long an instance may take for its calls and exit hooks when it is stopped. Default DefaultStopPatience.
	StopPatience time.Duration

	// Secret returns the value of a secret that a function asks for. Default: the environment variable of that name.
	Secret func(name string) (value string, ok bool)

	// Devices are paths of the device nodes that functions with a GPU get.
	Devices []string

	// Network says that the host has a network for instances to be connected to at their boot.
	Network bool

	// Log is where what instances print goes, for each app; see Log. Nil: nowhere.
	Log *Logs

	// Logger hears of what happens to instances. Nil: nobody does.
	Logger *slog.Logger
}

func (o *Options) setDefaults() error {
	switch {
	case o.Registry == nil:
		return errors.New("function server: no registry")
	case o.Host == nil:
		return errors.New("function server: no host")
	case o.OpenRoot == nil:
		return errors.New("function server: nobody opens root file systems")
	case o.CPU == nil:
		return errors.New("function server: no CPU")
	}
	setDefault(&o.FreezeAfter, DefaultFreezeAfter)
	setDefault(&o.Idle, DefaultIdle)
	setDefault(&o.MaxInstances, DefaultMaxInstances)
	setDefault(&o.Boots, 2*runtime.NumCPU())
	setDefault(&o.Failures, DefaultFailures)
	setDefault(&o.BootPatience, DefaultBootPatience)
	setDefault(&o.StopPatience, DefaultStopPatience)
	if o.MaxInstances < 0 || o.Boots < 0 || o.Failures < 0 || o.Idle < 0 || o.StopPatience < 0 {
		return errors.New("function server: of the options only FreezeAfter may be negative")
	}
	if o.Secret == nil {
		o.Secret = os.LookupEnv
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	for _, d := range o.Devices {
		if !filepath.IsAbs(d) {
			return fmt.Errorf("function server: device %q: want an absolute path", d)
		}
	}
	return nil
}

func setDefault[T comparable](v *T, def T) {
	if *v == *new(T) {
		*v = def
	}
}

// A Target names what is called: an object of an app, constructed with parameters.
type Target struct {
	App, Object string
	// Parameters is a JSON object; nil: the object's defaults.
	Parameters json.RawMessage
}

func (t *Target) String() string { return t.App + "/" + t.Object }
