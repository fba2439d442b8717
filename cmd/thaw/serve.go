package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"thaw/cmd/internal/cli"
	"thaw/control"
	"thaw/cpu"
	"thaw/function"
	"thaw/function/gateway"
	"thaw/function/instance"
	"thaw/function/network"
	"thaw/function/registry"
	"thaw/function/rootfs"
	"thaw/function/sdk"
	"thaw/function/version"
	"thaw/pagestore"
)

// serveFlags are the flags of serve.
type serveFlags struct {
	state, api, listen string
	bridge             string
	namespace          string
	subnet             string
	masquerade         bool
	devices, hideCPU   []string
	freezeAfter        int
	idle, boot, stop   time.Duration
	maxInstances       int
	failures           int
	logFormat          string
}

func newServe(a *app) *cobra.Command {
	s := &serveFlags{}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run deployed functions behind HTTP, from nothing when they are called",
		Long: `Runs what thaw deploy has registered. An instance is started when a call has none to go to: the first ones cold, later ones from
a memory snapshot that is taken behind them. Instances that nobody calls are stopped after a time.

    POST /v1/apps/APP/OBJECT/METHOD      arguments as a JSON object or array
    *    /web/APP/OBJECT/ENDPOINT/...    requests to web endpoints
    GET  /v1/instances, /v1/health, /metrics

The socket is for its owner alone. What --listen opens has no authentication: put it behind something that knows its callers.

thawd has to run beside it, on the same store: it brings the memory of restored instances. One that is started at the same time is
waited for. Needs root, for what runc and CRIU do.`,
		Example: `  thawd serve &
  thaw serve --listen 127.0.0.1:8700
  thaw serve --freeze-after 1 --idle 1m`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serve(cmd.Context(), s) },
	}
	f := cmd.Flags()
	stateFlag(cmd, &s.state)
	apiFlag(cmd, &s.api)
	f.StringVar(&s.listen, "listen", "", "TCP address to serve on, besides the socket")
	f.StringVar(&s.namespace, "namespace", pagestore.DefaultNamespace, "namespace of the page store for snapshots; a tenant each: instances see the packs of theirs")
	f.StringVar(&s.bridge, "bridge", "thaw0", "bridge that instances are connected to, which is made; empty: instances have no network")
	f.StringVar(&s.subnet, "subnet", "10.77.0.0/16", "addresses of instances on the bridge")
	f.BoolVar(&s.masquerade, "masquerade", false, "let instances reach other networks in the name of this host, which has to forward packets")
	f.StringSliceVar(&s.devices, "device", nil, "device node that functions with a GPU get, such as /dev/nvidia0; may be repeated")
	f.StringSliceVar(&s.hideCPU, "hide-cpu", nil, "features of this host's CPU that are not to be used, as if it had none of them")
	f.IntVar(&s.freezeAfter, "freeze-after", function.DefaultFreezeAfter, "cold boots before a snapshot is taken; -1: none ever is")
	f.DurationVar(&s.idle, "idle", function.DefaultIdle, "how long an instance that nobody calls is kept, unless its function says it")
	f.DurationVar(&s.boot, "boot-timeout", function.DefaultBootPatience, "how long a start, or a restore, may take until the instance is ready; before a freeze, warm-up and hooks as long again")
	f.DurationVar(&s.stop, "stop-timeout", function.DefaultStopPatience, "how long an instance may take for its calls and exit hooks before it is killed")
	f.IntVar(&s.maxInstances, "max-instances", function.DefaultMaxInstances, "most instances of one object")
	f.IntVar(&s.failures, "failures", function.DefaultFailures, "restores in a row that may fail before a snapshot is set aside")
	f.StringVar(&s.logFormat, "log-format", "text", "format of the log on standard error: text or json")
	a.toolFlags(cmd)
	return cmd
}

// apiFlag adds the flag that names the socket of the function server.
func apiFlag(cmd *cobra.Command, api *string) {
	cmd.Flags().StringVar(api, "api", cli.Env(cli.EnvAPI, cli.DefaultAPI), "socket of the function server, or its http URL ($"+cli.EnvAPI+")")
}

func (a *app) serve(ctx context.Context, f *serveFlags) (err error) {
	level := "info"
	if a.verbose {
		level = "debug"
	}
	log, err := cli.NewLogger(a.stderr, f.logFormat, level)
	if err != nil {
		return err
	}
	if strings.Contains(f.api, "://") {
		return cli.Usagef("--api %s: a server needs a socket of its own; --listen is for the network", f.api)
	}
	// The socket first: whoever has it is the server of this place.
	if err := os.MkdirAll(filepath.Dir(f.api), 0o755); err != nil {
		return fmt.Errorf("make folder of the socket: %w", err)
	}
	l, err := control.Listen(f.api)
	if err != nil {
		return explainListen(err)
	}
	defer l.Close()
	thawd := a.client()
	defer thawd.Close()
	if err := a.awaitThawd(ctx, thawd, log); err != nil {
		return err
	}
	n, err := a.openGround(ctx, f, thawd, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	return a.serveFunctions(ctx, f, n, l, log)
}

// thawdPatience is how long serve waits for a thawd that is started with it. One takes some milliseconds until it listens.
const thawdPatience = 5 * time.Second

// awaitThawd returns when thawd answers, or will not.
func (a *app) awaitThawd(ctx context.Context, thawd *control.Client, log *slog.Logger) error {
	patience, cancel := context.WithTimeout(ctx, thawdPatience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for told := false; ; told = true {
		_, err := thawd.Health(ctx)
		if !errors.Is(err, control.CodeUnavailable) {
			return err
		}
		if !told {
			log.Info("waiting for thawd", "socket", a.socket)
		}
		select {
		case <-tick.C:
		case <-patience.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
	}
}

// explainListen gives advice on the socket in terms of this server's flags.
func explainListen(err error) error {
	switch {
	case errors.Is(err, control.ErrSocketTaken):
		return &cli.Error{Code: cli.Busy, Err: err, Hint: "another function server runs here: use it, or choose another --api, --state, --bridge and --subnet"}
	case errors.Is(err, control.ErrNotSocket):
		return &cli.Error{Code: cli.Busy, Err: err, Hint: "choose another --api, or move the file away"}
	case errors.Is(err, control.ErrSocketName):
		return &cli.Error{Code: cli.Usage, Err: err, Hint: "choose a shorter --api"}
	}
	return err
}

// serveFunctions serves until ctx ends, and then until all instances have.
func (a *app) serveFunctions(ctx context.Context, f *serveFlags, p *ground, l net.Listener, log *slog.Logger) error {
	metrics := prometheus.NewRegistry()
	if err := p.server.Register(metrics); err != nil {
		return err
	}
	h := gateway.NewHandler(p.server, gateway.Options{Logger: log, Metrics: promhttp.HandlerFor(metrics, promhttp.HandlerOpts{})})
	listeners := []net.Listener{l}
	if f.listen != "" {
		tcp, err := net.Listen("tcp", f.listen)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		listeners = append(listeners, tcp)
		log.Info("functions are served", "address", tcp.Addr().String())
	}
	log.Info("functions are served", "version", cli.Version, "state", f.state, "socket", f.api)
	defer context.AfterFunc(ctx, func() {
		log.Info("told to end: calls in progress finish, new ones are refused", "instances", len(p.server.Instances()))
	})()
	g, gctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		g.Go(func() error { return serveHTTP(gctx, l, h, f.stop) })
	}
	err := g.Wait()
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.stop+5*time.Second)
	defer cancel()
	return errors.Join(err, p.server.Close(stopCtx))
}

// serveHTTP serves until ctx ends, and then until the requests that are in progress have their answers, or the time is over.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler, grace time.Duration) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if err := s.Shutdown(stopCtx); err != nil {
		return errors.Join(err, s.Close())
	}
	return nil
}

// A ground is what a function server stands on.
type ground struct {
	server *function.Server
	closes []func() error // in the order in which they were opened
}

// Close closes all, the last first. The server has ended.
func (p *ground) Close() (err error) {
	for i := len(p.closes) - 1; i >= 0; i-- {
		err = errors.Join(err, p.closes[i]())
	}
	return err
}

func (a *app) openGround(ctx context.Context, f *serveFlags, thawd *control.Client, log *slog.Logger) (_ *ground, err error) {
	p := &ground{}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	host, err := cpu.ThisHost(f.hideCPU...)
	if err != nil {
		return nil, &cli.Error{Code: cli.Usage, Err: err}
	}
	reg, err := registry.Open(f.state, &registry.Options{Create: true})
	if err != nil {
		return nil, err
	}
	store, err := a.makeStore()
	if err != nil {
		return nil, err
	}
	p.closes = append(p.closes, store.Close)
	// Instances bind its folder of packs before there is a snapshot.
	if err := store.MakeNamespace(f.namespace); err != nil {
		return nil, err
	}
	files, err := sdkFiles()
	if err != nil {
		return nil, err
	}
	sdkDir, _, err := sdk.Unpack(files, reg.SDKs())
	if err != nil {
		return nil, err
	}
	net, err := f.network()
	if err != nil {
		return nil, err
	}
	p.closes = append(p.closes, net.Close)
	tools := a.tools()
	if _, err := tools.CRIUVersion(ctx); err != nil {
		return nil, err
	}
	instances, err := instance.Open(ctx, instance.HostOptions{
		Dir: filepath.Join(reg.Dir(), "instances"), CRIU: tools.CRIU, Runc: tools.Runc, Store: store, Thawd: thawd, SDK: sdkDir, Network: net, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	p.closes = append(p.closes, instances.Close)
	logs, err := function.OpenLogs(logsDir(reg.Dir()))
	if err != nil {
		return nil, err
	}
	p.closes = append(p.closes, logs.Close)
	p.server, err = function.New(&function.Options{
		Registry: reg, Host: function.On(instances), OpenRoot: func(r version.Root) (*rootfs.Root, error) { return openRoot(ctx, r, reg.Dir()) }, CPU: host, Namespace: f.namespace, FreezeAfter: f.freezeAfter, Idle: f.idle,
		MaxInstances: f.maxInstances, Failures: f.failures, BootPatience: f.boot, StopPatience: f.stop, Devices: f.devices, Network: f.bridge != "", Log: logs, Logger: log,
	})
	return p, err
}

// logsDir is the folder of the apps' logs.
func logsDir(state string) string { return filepath.Join(state, "logs") }

// spareNetworks are made ahead: they take a restore 35 ms that makes its own.
const spareNetworks = 2

func (f *serveFlags) network() (*network.Network, error) {
	api, err := filepath.Abs(f.api)
	if err != nil {
		return nil, err
	}
	// Beside the socket, and named after it: another server may have its socket in the same folder.
	o := network.Options{Dir: api + ".networks", Bridge: f.bridge, Masquerade: f.masquerade, Spares: spareNetworks}
	if f.bridge != "" {
		subnet, err := netip.ParsePrefix(f.subnet)
		if err != nil {
			return nil, cli.Usagef("--subnet %q is none: want an IPv4 address and a length, such as 10.77.0.0/16", f.subnet)
		}
		o.Subnet = subnet
	}
	return network.Open(o)
}
