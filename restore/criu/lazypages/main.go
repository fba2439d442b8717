package lazypages

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sync/errgroup"

	"thaw/restore"
	"thaw/restore/criu"
)

// Options is what a program adds to the stand-in.
type Options struct {
	// Resolve finds the pages of a skeleton: dir is a folder with the file criu.SkeletonMarker. The layouts are by
	// image pid. The closer is called when nothing needs the source any more. Default: skeletons are refused.
	Resolve func(dir string) (restore.PageSource, map[int]restore.Layout, io.Closer, error)

	// Program is the command, without the arguments of lazy-pages, that --daemon starts again in the background.
	// Default: the running program with the argument "lazy-pages".
	Program []string
}

// Main is Run without options.
func Main(args []string, stdout, stderr io.Writer) int { return Run(args, stdout, stderr, nil) }

// Run does what `criu lazy-pages` does with these arguments, which do not include the words "criu lazy-pages", and
// returns its exit code: 0 when all processes are complete or gone, 1 for anything else. opts may be nil.
//
// It takes over SIGTERM, SIGINT, SIGHUP and SIGPIPE of the process.
func Run(args []string, stdout, stderr io.Writer, opts *Options) int {
	if opts == nil {
		opts = &Options{}
	}
	a, err := newArguments(args)
	switch {
	case err != nil:
		fmt.Fprintf(stderr, "Error: %v\n%s", err, usage)
		return 1
	case a.help:
		fmt.Fprint(stdout, usage)
		return 0
	case a.version:
		fmt.Fprintf(stdout, "Version: %s\n", standsInFor)
		return 0
	}
	// A reader of our output that goes away must not take the processes' memory with it.
	signal.Ignore(syscall.SIGPIPE)
	if a.daemon && !inBackground() {
		err = startInBackground(a, args, opts, stdout, stderr)
	} else {
		err = serve(a, opts, stdout, stderr)
	}
	if err != nil {
		fmt.Fprintf(stderr, "Error: %v\n", err)
		return 1
	}
	return 0
}

// standsInFor is the version of CRIU whose arguments are understood.
const standsInFor = "4.2"

const usage = `Usage: lazy-pages -D DIR [options]

Serves the lazy pages of one "criu restore --lazy-pages" in place of "criu lazy-pages".

  -D, --images-dir DIR    folder of the images (default: the current one)
  -W, --work-dir DIR      folder of the socket, log and pidfile (default: the images' one)
  -o, --log-file FILE     log file, in the work folder; - is standard output (default: standard error)
  -v, --verbosity[=NUM]   1 errors, 2 warnings (default), 3 information, 4 debugging
  -d, --daemon            go on in the background when the socket is there
      --pidfile FILE      with -d, write the pid of the server to FILE, in the work folder
      --status-fd FD      write a zero byte to FD, and close it, when the socket is there
      --action-script CMD run CMD with CRTOOLS_SCRIPT_ACTION=status-ready when the socket is there
      --page-server       get the pages from a page server:
      --address ADDR      its address (default: localhost)
      --port PORT         its port
      --ps-socket FD      a connection to it that is there already
      --tls ...           secure the connection; --tls-cacert, --tls-cacrl, --tls-cert, --tls-key FILE,
                          --tls-no-cn-verify
      --config FILE       read options from FILE, and not from /etc/criu/default.conf and ~/.criu/default.conf
      --no-default-config do not read these

CRIU's other options are accepted and ignored.
`

// A source is where pages come from.
type source struct {
	restore.PageSource
	layouts map[int]restore.Layout
	failure restore.FailurePolicy

	finish func() error // tells a page server that all went well
	close  func() error
}

// newSource returns a source that needs no word at the end.
func newSource(pages restore.PageSource, layouts map[int]restore.Layout, c io.Closer) *source {
	return &source{PageSource: pages, layouts: layouts, finish: func() error { return nil }, close: c.Close}
}

// serve serves one restore.
func serve(a *arguments, opts *Options, stdout, stderr io.Writer) (err error) {
	log, closeLog, err := a.openLog(stdout, stderr)
	if err != nil {
		return err
	}
	defer closeLog()
	defer func() {
		if err != nil {
			log.Error("lazy-pages ends", "err", err)
		}
	}()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	src, err := a.openSource(ctx, opts)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := src.close(); err == nil {
			err = cerr
		}
	}()
	l, err := criu.Listen(filepath.Join(a.workDir, criu.SocketName))
	if err != nil {
		return err
	}
	defer l.Close()
	if err := a.ready(ctx, log); err != nil {
		return fmt.Errorf("signal readiness: %w", err)
	}
	if err := serveRestore(ctx, l, src, log); err != nil {
		return err
	}
	return src.finish()
}

// serveRestore runs a session for the CRIU that connects to l.
func serveRestore(ctx context.Context, l *criu.Listener, src *source, log *slog.Logger) error {
	session, err := restore.NewSession(&restore.Options{Source: src, Failure: src.failure, Logger: log})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	// If CRIU fails, that is the error to report: it comes first and ends the session.
	g.Go(func() error {
		if err := criu.Serve(ctx, l, session, src.layouts); err != nil {
			return err
		}
		// CRIU's server brings all memory of forked children too, and so ends before they do.
		session.Drain()
		return nil
	})
	g.Go(func() error { return session.Run(ctx) })
	err = g.Wait()
	st := session.Stats()
	switch {
	case err != nil && st.LastError != "": // CRIU may have failed for that
		return fmt.Errorf("%w; pages could not be had: %s", err, st.LastError)
	case err != nil:
		return err
	}
	log.Info("all processes are complete or gone", "processes", st.Processes, "faults", st.Faults,
		"bytes_demand", st.BytesDemand, "bytes_stream", st.BytesStream, "pages_failed", st.PagesFailed)
	if st.PagesFailed > 0 {
		return fmt.Errorf("%d pages could not be had, the last because: %s", st.PagesFailed, st.LastError)
	}
	return nil
}

// openLog returns the logger, and a function that closes what it writes to.
func (a *arguments) openLog(stdout, stderr io.Writer) (log *slog.Logger, done func() error, err error) {
	var out io.Writer
	switch a.logFile {
	case "":
		out, done, err = kept(stderr)
	case toStdout:
		out, done, err = kept(stdout)
	default:
		var f *os.File
		f, err = os.OpenFile(a.logFile, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600)
		out, done = f, f.Close
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open log: %w", err)
	}
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: a.level()})), done, nil
}

// openSource finds the pages: with a page server, in a store, or in the images.
func (a *arguments) openSource(ctx context.Context, opts *Options) (*source, error) {
	_, err := os.Stat(filepath.Join(a.imagesDir, criu.SkeletonMarker))
	skeleton := err == nil
	switch {
	case a.pageServer:
		return a.openRemote(ctx)
	case !skeleton:
		return openImages(a.imagesDir)
	case opts.Resolve == nil:
		return nil, fmt.Errorf("%s is the skeleton of a snapshot: its pages are in the snapshot's store", a.imagesDir)
	}
	pages, layouts, closer, err := opts.Resolve(a.imagesDir)
	if err != nil {
		return nil, fmt.Errorf("find the snapshot of skeleton %s: %w", a.imagesDir, err)
	}
	return newSource(pages, layouts, closer), nil
}

func openImages(dir string) (*source, error) {
	im, err := criu.Open(dir)
	if err != nil {
		return nil, err
	}
	defer im.Close()
	src, layouts, err := im.Source()
	if err != nil {
		return nil, err
	}
	return newSource(src, layouts, src), nil
}

func (a *arguments) openRemote(ctx context.Context) (*source, error) {
	im, err := criu.OpenRemote(a.imagesDir)
	if err != nil {
		return nil, err
	}
	defer im.Close()
	conn, err := a.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to the page server: %w", err)
	}
	src, layouts, err := criu.NewRemoteSource(conn, im, a.workDir)
	if err != nil {
		return nil, err
	}
	// A session that is told to end waits for whoever waits for the page server.
	context.AfterFunc(ctx, func() { conn.Close() })
	// When the page server is gone, so is all that it had: a process cannot do without it.
	return &source{src, layouts, restore.FailureKill, src.Finish, src.Close}, nil
}
