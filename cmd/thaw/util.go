package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"thaw/pagestore"
)

// absolute returns the absolute form of a path; the empty path stays empty.
func absolute(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	return filepath.Abs(path)
}

// isFolder returns an error unless path is a folder.
func isFolder(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return &os.PathError{Op: "open", Path: path, Err: unix.ENOTDIR}
	}
	return nil
}

// mustMark panics on an error of cobra's that says that a flag is marked which the command does not have.
func mustMark(err error) {
	if err != nil {
		panic(err)
	}
}

// table writes rows as aligned columns; the first row is the heading.
func table(w io.Writer, rows [][]string) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(tw, "\t")
			}
			fmt.Fprint(tw, cell)
		}
		fmt.Fprintln(tw)
	}
	tw.Flush()
}

// when returns a time as lists show it.
func when(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// names returns the names of snapshots as text.
func names(in []pagestore.Name) []string {
	out := make([]string, 0, len(in))
	for _, n := range in {
		out = append(out, n.String())
	}
	return out
}

// union returns the elements of both lists, sorted and each once.
func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}
