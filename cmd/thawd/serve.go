package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"thaw/cmd/internal/cli"
	"thaw/control"
	"thaw/daemon"
	"thaw/node"
	"thaw/pagestore"
	"thaw/restore"
	"thaw/restore/guard"
)

// serveOptions are the flags of thawd serve.
type serveOptions struct {
	store, socket, runDir string
	logFormat, logLevel   string
	metricsAddress        string
	readAhead, badPages   string
	wait                  string
	readers               int
	connectTimeout        time.Duration
	hold, holdFar         time.Duration
	recordShare           float64
	maxSessions, history  int
	tiers                 tierOptions
}

func newServe(stderr io.Writer) *cobra.Command {
	o := &serveOptions{}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve sessions over the control API",
		Long: `Serves sessions until it is told to end: SIGTERM, SIGINT or SIGHUP lets the running sessions finish, a second signal does
not.

The control socket, and what thawd makes beside it, are for thawd's own user alone. CRIU and runc run as root, so thawd
usually does, too; it needs no privilege of its own but the permission to read the store.`,
		Example: `  thawd serve
  thawd serve --store /srv/thaw --socket /run/thaw/a.sock --log-format json
  thawd serve --metrics-address 127.0.0.1:9478`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), o, stderr) },
	}
	f := cmd.Flags()
	f.StringVar(&o.store, "store", cli.Env(cli.EnvStore, cli.DefaultStore), "folder of the page store ($"+cli.EnvStore+")")
	f.StringVar(&o.socket, "socket", cli.Env(cli.EnvSocket, cli.DefaultSocket), "path of the control socket ($"+cli.EnvSocket+")")
	f.StringVar(&o.runDir, "run-dir", "", "folder for the work folders of sessions (default: sessions, beside the socket)")
	f.StringVar(&o.logFormat, "log-format", "text", "format of the log on standard error: text or json")
	f.StringVar(&o.logLevel, "log-level", "info", "least level that is logged: debug, info, warn or error")
	f.StringVar(&o.metricsAddress, "metrics-address", "", "TCP address that serves /metrics, too (default: the socket alone does)")
	f.StringVar(&o.readAhead, "read-ahead", "4GiB", "how much of a snapshot is read before its runtime connects; 0: nothing")
	f.StringVar(&o.badPages, "bad-pages", restore.FailurePoison.String(),
		"what becomes of a page that cannot be had: poison (SIGBUS for who touches it), hold (who touches it waits) or kill (the process)")
	f.StringVar(&o.wait, "wait", restore.WaitAdaptive.String(),
		"how the next fault is waited for: adaptive (awake for some microseconds, if that pays), sleep, or spin (takes a CPU for each reader)")
	f.IntVar(&o.readers, "readers", 0, "threads that serve faults (default: one for two CPUs, at most 8)")
	f.DurationVar(&o.hold, "hold", restore.DefaultHold, "how long a process may be held, before it runs, for the pages that its working set says it needs; 0: not at all")
	f.DurationVar(&o.holdFar, "hold-far", restore.DefaultHoldFar, "the same where pages come from another node or an object store; longer, for 30s at most, while 100 MB come a second; 0: not at all")
	f.Float64Var(&o.recordShare, "record-share", 0.02, "share of restores, from 0 to 1, that are recorded for the working sets to learn; they are slower")
	f.DurationVar(&o.connectTimeout, "connect-timeout", time.Minute, "how long a session waits for its runtime")
	f.IntVar(&o.maxSessions, "max-sessions", 1024, "how many sessions there may be at a time")
	f.IntVar(&o.history, "history", 64, "how many ended sessions stay visible")
	o.tiers.add(cmd)
	return cmd
}

// serve runs the daemon until it has been told to end and has.
func serve(ctx context.Context, o *serveOptions, stderr io.Writer) error {
	log, err := cli.NewLogger(stderr, o.logFormat, o.logLevel)
	if err != nil {
		return err
	}
	if o.runDir == "" {
		o.runDir = filepath.Join(filepath.Dir(o.socket), "sessions")
	}
	// The socket first: whoever has it is the daemon of this place.
	l, err := listen(o.socket)
	if err != nil {
		return err
	}
	defer l.Close()
	store, n, err := openStore(ctx, o, log)
	if err != nil {
		return err
	}
	// Bundles bind the folder of packs, and containers may be started before there is a snapshot.
	if err := store.MakeNamespace(pagestore.DefaultNamespace); err != nil {
		log.Warn("the folder of packs is not there yet", "err", err)
	}
	if n != nil {
		defer n.Close() // the store, too
	} else {
		defer store.Close()
	}
	guardian, err := daemon.StartGuardian(&guard.Options{Command: []string{"/proc/self/exe", guardCommand}}, log)
	if err != nil {
		return err
	}
	defer guardian.Close()
	d, err := newDaemon(o, store, n, guardian, log)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	if err := d.Register(registry); err != nil {
		return err
	}
	if n != nil {
		if err := registry.Register(n.Collector()); err != nil {
			return err
		}
	}
	metrics := promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelError)})
	var metricsListener net.Listener
	if o.metricsAddress != "" {
		if metricsListener, err = net.Listen("tcp", o.metricsAddress); err != nil {
			return fmt.Errorf("serve metrics: %w", err)
		}
		log.Info("metrics are served", "address", metricsListener.Addr().String())
	}
	files, err := raiseFileLimit()
	if err != nil {
		log.Warn("the limit of descriptors stays as it is", "err", err)
	}
	log.Info("thawd serves", "version", cli.Version, "store", store.Dir(), "socket", o.socket, "files", files, "procs", setProcs())
	return runAll(ctx, d, n, log, []endpoint{
		{l, control.NewHandler(d, &control.HandlerOptions{Logger: log, Metrics: metrics})},
		{metricsListener, metricsOnly(metrics)},
	})
}

// An endpoint is a listener and what answers on it. One without a listener is not served.
type endpoint struct {
	listener net.Listener
	handler  http.Handler
}

// metricsOnly serves metrics, for a Prometheus that cannot reach the control socket, and nothing else.
func metricsOnly(metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	return mux
}

// runAll runs the daemon, the node if there is one, and the endpoints. The daemon's end ends the others; one of these that fails drains the daemon.
func runAll(ctx context.Context, d *daemon.Daemon, n *node.Node, log *slog.Logger, endpoints []endpoint) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	serveCtx, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	g, serveCtx := errgroup.WithContext(serveCtx)
	signals := catchSignals()
	defer signal.Stop(signals)
	g.Go(func() error { handleSignals(serveCtx, signals, d, stop, log); return nil })
	g.Go(func() error {
		defer stopServing()
		return d.Run(ctx)
	})
	if n != nil {
		g.Go(func() error { return n.Run(serveCtx) })
	}
	for _, e := range endpoints {
		if e.listener != nil {
			g.Go(func() error { return control.Serve(serveCtx, e.listener, e.handler, serveGrace) })
		}
	}
	context.AfterFunc(serveCtx, d.Drain)
	if err := notify("READY=1"); err != nil {
		log.Warn("service manager not told", "err", err)
	}
	err := g.Wait()
	log.Info("thawd ends")
	return err
}

// serveGrace is how long requests that are in progress may take when thawd ends.
const serveGrace = 2 * time.Second

// listen makes the control socket, and the folder it lies in.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make folder of the control socket: %w", err)
	}
	return control.Listen(path)
}
