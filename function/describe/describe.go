package describe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"thaw/function/version"
)

// Command is the first argument with which the program is started again. It is no command for users.
const Command = "describe-app"

// Where things are in the sandbox: where they are for the instances of a function, too.
const (
	AppDir = "/app"
	SDKDir = "/.thaw/python"
)

// DefaultTimeout is how long an import may take.
const DefaultTimeout = 5 * time.Minute

// Options are the options of [Run].
type Options struct {
	// File is the file that declares the app. The code sees its folder, and nothing else of this host.
	File string
	// Lowers are the folders of the root file system, absolute, the topmost first; Python is in it.
	Lowers []string
	// SDK is the folder with the package thaw.
	SDK string
	// Environment are variables ("KEY=value") that the code gets beyond a short list.
	Environment []string
	// Timeout is how long it may take. Default: [DefaultTimeout].
	Timeout time.Duration
	// Log receives what the code writes. Default: it is kept for errors only.
	Log io.Writer
}

// Errors of the package; test for them with errors.Is.
var (
	// ErrTimeout: the code took longer than it may.
	ErrTimeout = errors.New("importing the app takes too long")
	// ErrSandbox: the sandbox could not be made.
	ErrSandbox = errors.New("sandbox for the app's code")
	// ErrNotSupported: this is not Linux.
	ErrNotSupported = errors.New("supported on Linux only")
)

// Run runs the describe step. The error is a [*version.AuthorError] if the app's own code failed, and wraps [version.ErrDescription] if what
// came out is no description.
func Run(ctx context.Context, o Options) (*version.Description, error) {
	d, err := run(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("describe %s: %w", filepath.Base(o.File), err)
	}
	return d, nil
}

// config is what the process in the sandbox is told, in its second argument.
type config struct {
	Dir         string   `json:"dir"` // an empty folder to mount upon
	Lowers      []string `json:"lowers"`
	App         string   `json:"app"`
	SDK         string   `json:"sdk"`
	Environment []string `json:"environment"`
	Command     []string `json:"command"`
}

func run(ctx context.Context, o Options) (_ *version.Description, err error) {
	c, err := o.config()
	if err != nil {
		return nil, err
	}
	if c.Dir, err = os.MkdirTemp("", "thaw-describe-"); err != nil {
		return nil, err
	}
	// What is mounted there is mounted in another namespace, and never here.
	defer func() { err = errors.Join(err, os.Remove(c.Dir)) }()
	timeout := o.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%w: more than %v", ErrTimeout, timeout))
	defer cancel()

	var document bytes.Buffer
	log := &tail{next: o.Log}
	err = c.start(ctx, &limited{w: &document, left: version.MaxDescriptionLen}, log)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if document.Len() > 0 {
		d, parseErr := version.ParseDescription(document.Bytes())
		var author *version.AuthorError
		if parseErr == nil && err == nil || errors.As(parseErr, &author) {
			return d, parseErr
		}
		err = errors.Join(err, parseErr)
	}
	if err == nil {
		err = fmt.Errorf("%w: it is empty", version.ErrDescription)
	}
	return nil, log.explain(err)
}

func (o *Options) config() (*config, error) {
	file, err := filepath.Abs(o.File)
	if err != nil {
		return nil, err
	}
	if file, err = filepath.EvalSymlinks(file); err != nil {
		return nil, err
	}
	if info, err := os.Stat(file); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", file)
	}
	sdk, err := filepath.Abs(o.SDK)
	if err != nil {
		return nil, err
	}
	for _, lower := range o.Lowers {
		if !filepath.IsAbs(lower) {
			return nil, fmt.Errorf("folder %q of the root file system is not absolute", lower)
		}
	}
	return &config{
		Lowers: o.Lowers, App: filepath.Dir(file), SDK: sdk,
		Environment: append([]string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "LANG=C.UTF-8", "PYTHONPATH=" + SDKDir,
			"PYTHONDONTWRITEBYTECODE=1", "CUDA_VISIBLE_DEVICES=",
		}, o.Environment...),
		Command: []string{"python3", "-m", "thaw.describe", AppDir + "/" + filepath.Base(file)},
	}, nil
}

// start runs the program again and waits for its end. The kernel kills it with the thread that started it, so that one is ours as long.
func (c *config) start(ctx context.Context, stdout, stderr io.Writer) error {
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd, err := sandboxed(ctx, string(text))
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	// Children that the code left keep the pipes open until the pid namespace has ended with its first process.
	cmd.WaitDelay = 10 * time.Second
	return cmd.Run()
}

// limited passes on so many bytes, and refuses more.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if len(p) > l.left {
		return 0, fmt.Errorf("%w: more than %d bytes", version.ErrDescription, version.MaxDescriptionLen)
	}
	l.left -= len(p)
	return l.w.Write(p)
}

// tail keeps the end of what is written.
type tail struct {
	next io.Writer
	text []byte
}

// keepLog is how much of the code's output an error shows.
const keepLog = 8 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	if n := len(t.text) - keepLog; n > 0 {
		t.text = append(t.text[:0], t.text[n:]...)
	}
	if t.next != nil {
		return t.next.Write(p)
	}
	return len(p), nil
}

// explain adds to the error what was written.
func (t *tail) explain(err error) error {
	text := strings.TrimSpace(string(t.text))
	if text == "" {
		return err
	}
	return fmt.Errorf("%w; its output:\n%s", err, text)
}
