package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"thaw/cmd/internal/cli"
	"thaw/function"
	"thaw/function/version"
)

// followInterval is how often a log that is followed is looked at.
const followInterval = 200 * time.Millisecond

func newLogs(a *app) *cobra.Command {
	var state string
	var follow bool
	var last int
	cmd := &cobra.Command{
		Use:   "logs APP[/OBJECT]",
		Short: "Show what functions print",
		Long: `Shows what the instances of an app print, and what the function server says about them: snapshots that are taken, restores that
fail. Each line has the time, the name of the instance (or of the object, for the server's lines), and the text.`,
		Example: `  thaw logs sentence-transformers
  thaw logs sentence-transformers/Embedder --follow`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.logs(cmd.Context(), state, args[0], last, follow)
		},
	}
	stateFlag(cmd, &state)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with lines as they come")
	cmd.Flags().IntVarP(&last, "lines", "n", 100, "how many of the last lines are shown; 0: all")
	return cmd
}

func (a *app) logs(ctx context.Context, state, target string, last int, follow bool) error {
	app, object, _ := strings.Cut(target, "/")
	if err := version.CheckName(app); err != nil {
		return &cli.Error{Code: cli.Usage, Err: err}
	}
	path := function.LogPath(logsDir(state), app)
	lines, end, err := readLog(path, object)
	if errors.Is(err, fs.ErrNotExist) && !follow {
		if _, err := os.Stat(filepath.Join(state, "apps", app)); err != nil {
			return &cli.Error{Code: cli.NotFound, Err: fmt.Errorf("app %s is not deployed", app), Hint: "thaw functions shows what is deployed"}
		}
		return nil // it has not said anything yet
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if last > 0 && len(lines) > last {
		lines = lines[len(lines)-last:]
	}
	for _, l := range lines {
		if err := a.printLine(l); err != nil {
			return err
		}
	}
	if !follow {
		return nil
	}
	return a.followLog(ctx, path, object, end)
}

// A logLine is a line of an app's log.
type logLine struct {
	Time     string `json:"time"`
	Instance string `json:"instance"`
	Text     string `json:"text"`
}

func (a *app) printLine(l logLine) error {
	return a.print(l, func(w io.Writer) { fmt.Fprintf(w, "%s %s %s\n", l.Time, l.Instance, l.Text) })
}

// parseLine returns the line, and whether it is of the object; an empty one is each.
func parseLine(text, object string) (logLine, bool) {
	at, rest, _ := strings.Cut(text, " ")
	label, said, _ := strings.Cut(rest, " ")
	return logLine{at, label, said}, object == "" || label == object || strings.HasPrefix(label, object+"-")
}

// readLog returns the lines of a log, and of the one before it, and where it ends.
func readLog(path, object string) (lines []logLine, end int64, err error) {
	for _, p := range []string{path + ".1", path} {
		data, err := os.ReadFile(p)
		if p != path && errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return lines, 0, err
		}
		whole := data[:bytes.LastIndexByte(data, '\n')+1]
		end = int64(len(whole))
		for text := range strings.Lines(string(whole)) {
			if l, ok := parseLine(strings.TrimSuffix(text, "\n"), object); ok {
				lines = append(lines, l)
			}
		}
	}
	return lines, end, nil
}

// followLog prints what comes behind end, also in a new file under the same name, until ctx ends.
func (a *app) followLog(ctx context.Context, path, object string, end int64) error {
	tick := time.NewTicker(followInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var err error
		if end, err = a.printFrom(path, object, end); err != nil {
			return err
		}
	}
}

func (a *app) printFrom(path, object string, end int64) (int64, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return end, err
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() < end {
		end = 0 // a new one was begun
	}
	if _, err := f.Seek(end, io.SeekStart); err != nil {
		return end, err
	}
	r := bufio.NewReader(f)
	for {
		text, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return end, nil
		} else if err != nil {
			return end, err
		}
		end += int64(len(text))
		if l, ok := parseLine(strings.TrimSuffix(text, "\n"), object); ok {
			if err := a.printLine(l); err != nil {
				return end, err
			}
		}
	}
}
