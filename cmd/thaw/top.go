package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"thaw/cmd/internal/cli"
	"thaw/control"
)

// topFlags are the flags of top.
type topFlags struct {
	every time.Duration
	once  bool
}

func newTop(a *app) *cobra.Command {
	t := &topFlags{}
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch sessions, and where their pages come from",
		Long: `Shows thawd's sessions and the places that pages come from, again and again until it is interrupted: how far each session is and where its pages came
from; from which node or object store how much came, how soon, and what went wrong. Rates are those since the last time. On a
terminal it draws over itself; elsewhere it writes one after the other, with --json one object on each line. What it shows is in
thawd's metrics, too.`,
		Example: `  thaw top
  thaw top --every 5s
  thaw top --once --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.top(cmd.Context(), t) },
	}
	f := cmd.Flags()
	f.DurationVar(&t.every, "every", time.Second, "how often it looks")
	f.BoolVar(&t.once, "once", false, "look once")
	return cmd
}

// shownTop is what thawd says at one moment.
type shownTop struct {
	Time     time.Time         `json:"time"`
	Health   *control.Health   `json:"thawd"`
	Sessions []control.Session `json:"sessions"`
	Tiers    *control.Tiers    `json:"tiers,omitempty"` // not set if thawd knows no place beyond its store
}

func (a *app) top(ctx context.Context, f *topFlags) error {
	if f.every < 100*time.Millisecond {
		return cli.Usagef("--every is %v: want at least 100ms", f.every)
	}
	c := a.client()
	defer c.Close()
	now, err := look(ctx, c)
	if err != nil {
		return err
	}
	if f.once {
		return a.print(now, (&topView{now: now}).write)
	}
	d := a.newDisplay()
	defer d.end()
	tick := time.NewTicker(f.every)
	defer tick.Stop()
	for before := now; ; {
		if err := d.show(&topView{before: before, now: now}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil // which is how it ends
		case <-tick.C:
		}
		next, err := look(ctx, c)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			// It may be back. Whoever reads this in a script wants to know.
			if !d.terminal {
				return err
			}
			if err := d.fail(err); err != nil {
				return err
			}
		default:
			before, now = now, next
		}
	}
}

// look asks thawd for everything.
func look(ctx context.Context, c *control.Client) (*shownTop, error) {
	t := &shownTop{Time: time.Now()}
	var err error
	if t.Health, err = c.Health(ctx); err != nil {
		return nil, err
	}
	if t.Sessions, err = c.Sessions(ctx); err != nil {
		return nil, err
	}
	if t.Tiers, err = c.Tiers(ctx); err != nil && !errors.Is(err, control.CodeNoTiers) && !errors.Is(err, control.CodeNotFound) {
		return nil, err
	}
	if err != nil {
		t.Tiers = nil
	}
	return t, nil
}

// display is where the views of top go.
type display struct {
	app      *app
	terminal bool
	shown    bool
}

// What a terminal is told: another screen, so that what was there before is there again afterwards; no cursor; from the top, each line to its end,
// and nothing below.
const (
	screenBegin = "\x1b[?1049h\x1b[?25l"
	screenEnd   = "\x1b[?25h\x1b[?1049l"
	screenHome  = "\x1b[H"
	lineEnd     = "\x1b[K\r\n"
	screenRest  = "\x1b[J"
)

func (a *app) newDisplay() *display {
	return &display{app: a, terminal: cli.IsTerminal(a.stdout) && !a.json}
}

// show shows a view. On a terminal the whole screen goes out with one write, over the one before: nothing is cleared that is drawn again, so nothing flickers.
func (d *display) show(v *topView) error {
	switch {
	case d.terminal:
		return d.draw(v.lines())
	case d.app.json:
		return json.NewEncoder(d.app.stdout).Encode(v.now)
	}
	var out bytes.Buffer
	if d.shown {
		fmt.Fprintln(&out)
	}
	v.write(&out)
	d.shown = true
	_, err := d.app.stdout.Write(out.Bytes())
	return err
}

// fail shows why there is nothing new.
func (d *display) fail(err error) error {
	_, hint := cli.Explain(err)
	return d.draw([]string{"thaw: " + err.Error(), hint})
}

func (d *display) draw(lines []string) error {
	var out bytes.Buffer
	if !d.shown {
		out.WriteString(screenBegin)
		d.shown = true
	}
	width, height := d.size()
	frame(&out, lines, width, height)
	_, err := d.app.stdout.Write(out.Bytes())
	return err
}

// frame writes what makes a screen show the lines, as far as they fit. Errors that others have worded may hold anything, and must not steer the terminal.
func frame(out *bytes.Buffer, lines []string, width, height int) {
	out.WriteString(screenHome)
	for i, line := range lines[:min(len(lines), height)] {
		runes := []rune(line)
		for _, r := range runes[:min(len(runes), width)] {
			if unicode.IsControl(r) {
				r = ' '
			}
			out.WriteRune(r)
		}
		if i < height-1 { // after the last one the screen would scroll
			out.WriteString(lineEnd)
		}
	}
	out.WriteString(screenRest)
}

// size returns how many columns and lines the terminal has at the moment.
func (d *display) size() (width, height int) {
	if f, ok := d.app.stdout.(*os.File); ok {
		if ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && ws.Col > 0 && ws.Row > 0 {
			return int(ws.Col), int(ws.Row)
		}
	}
	return 80, 24
}

func (d *display) end() {
	if d.terminal && d.shown {
		fmt.Fprint(d.app.stdout, screenEnd)
	}
}
