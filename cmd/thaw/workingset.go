package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"thaw/cmd/internal/cli"
	"thaw/cmd/internal/tracepage"
	"thaw/internal/durable"
	"thaw/pagestore"
	"thaw/restore/workingset"
)

func newTraceMerge(a *app) *cobra.Command {
	var output, into string
	cmd := &cobra.Command{
		Use:   "merge (-o FILE | --into NAME) SET...",
		Short: "Merge working sets of a snapshot",
		Long: `Merges working sets of the same snapshot into one, as if one host had recorded all restores. Name the newest set first: where
there is room for 32 recordings of a page, it is the last ones that count.

With --into they are merged into the working set that the snapshot has, as newer ones; to pack its pages anew afterwards, see thaw snapshot
optimize --pack-only.`,
		Example: `  thaw trace merge -o web.ws tuesday.ws monday.ws
  thaw trace merge --into web other-node.ws`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("%s takes the files of working sets, and got none", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if into != "" {
				return a.mergeInto(cmd.Context(), into, args)
			}
			return a.traceMerge(args, output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write; one that exists is replaced")
	cmd.Flags().StringVar(&into, "into", "", "snapshot whose working set the others become a part of")
	cmd.MarkFlagsOneRequired("output", "into")
	cmd.MarkFlagsMutuallyExclusive("output", "into")
	mustMark(cmd.MarkFlagFilename("output"))
	return cmd
}

func newTraceDrop(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "drop NAME",
		Short: "Forget the working set of a snapshot",
		Long: `Deletes the working set of a snapshot and the packed copy of its pages. The snapshot stays as it is: restores bring its memory as if
nothing were known of what is needed first, until something has been learned again.`,
		Example: `  thaw trace drop web`,
		Args:    oneName,
		RunE:    func(cmd *cobra.Command, args []string) error { return a.traceDrop(cmd.Context(), args[0]) },
	}
}

// dropped is what trace drop prints.
type dropped struct {
	Snapshot    string `json:"snapshot"`
	HintBytes   int64  `json:"hint_bytes"`
	PackedBytes int64  `json:"packed_bytes"`
}

func (a *app) traceDrop(ctx context.Context, name string) error {
	return a.withSnapshot(name, func(snap *pagestore.Snapshot) error {
		out := dropped{Snapshot: snap.Name().String()}
		out.HintBytes, out.PackedBytes = snap.WorkingSetBytes()
		if err := snap.DropWorkingSet(ctx); err != nil {
			return err
		}
		return a.print(out, func(w io.Writer) {
			fmt.Fprintf(w, "%s: working set of %s dropped\n", out.Snapshot, cli.Bytes(uint64(out.HintBytes+out.PackedBytes)))
		})
	})
}

// withSnapshot leases a snapshot while do runs.
func (a *app) withSnapshot(name string, do func(*pagestore.Snapshot) error) (err error) {
	parsed, err := pagestore.ParseName(name)
	if err != nil {
		return err
	}
	store, err := a.openStore()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	snap, err := store.Snapshot(parsed)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	return do(snap)
}

// setOf reads the working set of a snapshot.
func setOf(snap *pagestore.Snapshot) (set *workingset.Set, size int64, err error) {
	data, err := snap.WorkingSet()
	if err != nil {
		return nil, 0, err
	}
	if set, err = workingset.Decode(data); err == nil {
		err = set.Match(snap.Digest(), snap.Info().Pages)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("working set of %s: %w", snap.Name(), err)
	}
	return set, int64(len(data)), nil
}

// mergeInto merges working sets into that of a snapshot.
func (a *app) mergeInto(ctx context.Context, name string, files []string) error {
	merged, err := mergeFiles(files)
	if err != nil {
		return err
	}
	return a.withSnapshot(name, func(snap *pagestore.Snapshot) error {
		known, _, err := setOf(snap)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			known = workingset.NewSet(snap.Digest(), snap.Info().Pages)
		case err != nil:
			return err
		}
		if merged, err = workingset.Merge(merged, known); err != nil {
			return fmt.Errorf("merge %s into %s: %w", files[0], snap.Name(), err)
		}
		data, err := merged.Encode(nil)
		if err != nil {
			return err
		}
		if err := snap.SetHint(ctx, data); err != nil {
			return err
		}
		return a.tellMerged(snap.Name().String(), int64(len(data)), merged)
	})
}

func (a *app) traceMerge(files []string, output string) error {
	if err := isFolder(filepath.Dir(output)); err != nil {
		return fmt.Errorf("write %s: %w", output, err)
	}
	merged, err := mergeFiles(files)
	if err != nil {
		return err
	}
	data, err := merged.Encode(nil)
	if err != nil {
		return err
	}
	if err := durable.Replace(durable.Disk, output, data); err != nil {
		return fmt.Errorf("write %s: %w", output, err)
	}
	return a.tellMerged(output, int64(len(data)), merged)
}

func (a *app) tellMerged(name string, size int64, merged *workingset.Set) error {
	s := shownSetOf(name, size, merged)
	return a.print(s, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s from %d recordings\n", name, countedPages(s.brought()), merged.Learned())
	})
}

// mergeFiles merges the working sets of files, the newest first.
func mergeFiles(files []string) (merged *workingset.Set, err error) {
	for _, name := range files {
		set, err := readSet(name)
		if err != nil {
			return nil, err
		}
		if merged == nil {
			merged = set
			continue
		}
		if merged, err = workingset.Merge(merged, set); err != nil {
			return nil, fmt.Errorf("merge %s with %s: %w", name, files[0], err)
		}
	}
	return merged, nil
}

func readSet(name string) (*workingset.Set, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	set, err := workingset.Read(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return set, nil
}

// isSet reports whether a file says of itself that it is a working set, and leaves it at its beginning.
func isSet(file *os.File) (bool, error) {
	head := make([]byte, len(workingset.Magic))
	n, err := io.ReadFull(file, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, err
	}
	_, err = file.Seek(0, io.SeekStart)
	return string(head[:n]) == workingset.Magic, err
}

// shownSet is what trace show prints of a working set, and trace merge.
type shownSet struct {
	File        string                   `json:"file"`
	Kind        string                   `json:"kind"`
	Bytes       int64                    `json:"bytes"`
	Digest      string                   `json:"snapshot_digest"`
	ImagePages  uint64                   `json:"image_pages"`
	Recordings  uint32                   `json:"recordings"`
	Partial     uint32                   `json:"partial_recordings"`
	HiddenPages uint64                   `json:"hidden_pages"`
	Image       workingset.Counts        `json:"image"`
	Times       []shownSpan              `json:"times"`
	Objects     []workingset.ObjectCount `json:"objects"`
	PlacePages  uint64                   `json:"place_pages"`
	Places      []workingset.Counts      `json:"places"`
}

// shownSpan is a bucket of time. The last one has no end.
type shownSpan struct {
	Until *time.Duration `json:"until_ns"`
	workingset.Counts
}

func (s *shownSpan) label() string {
	switch {
	case s.Until == nil:
		return "later"
	case *s.Until == 0:
		return "before"
	}
	return cli.Seconds(*s.Until)
}

// shownPlaces is into how many parts an image is cut: as many as fit into a line.
const shownPlaces = 64

func shownSetOf(name string, size int64, set *workingset.Set) *shownSet {
	sum := workingset.Summarize(set, nil, shownPlaces)
	s := &shownSet{
		File: name, Kind: "working set", Bytes: size, Digest: hex.EncodeToString(set.Digest[:]), ImagePages: set.ImagePages,
		Recordings: set.Recordings, Partial: set.Partial, Image: sum.Image, Objects: sum.Objects, PlacePages: sum.PlacePages, Places: sum.Places,
	}
	for _, h := range set.Hidden {
		s.HiddenPages += h.Pages
	}
	for i, c := range sum.Buckets {
		span := shownSpan{Counts: c}
		if until := workingset.Bucket(i).Until(); until < math.MaxInt64 {
			span.Until = &until
		}
		s.Times = append(s.Times, span)
	}
	return s
}

// brought returns how many pages of the image are brought before they are asked for.
func (s *shownSet) brought() uint64 { return s.Image.Must.Pages + s.Image.Likely.Pages }

func countedPages(n uint64) string {
	return fmt.Sprintf("%d pages, %s", n, cli.Bytes(n*workingset.PageSize))
}

var shownClasses = []workingset.Class{workingset.ClassMust, workingset.ClassLikely, workingset.ClassTail}

// classCounts returns the pages of each class.
func classCounts(c *workingset.Counts) []uint64 {
	var out []uint64
	for _, class := range shownClasses {
		out = append(out, c.Of(class).Pages)
	}
	return out
}

func classNames() []string {
	var out []string
	for _, class := range shownClasses {
		out = append(out, class.String())
	}
	return out
}

// facts says what the set is of and what it is worth.
func (s *shownSet) facts() [][]string {
	learned := fmt.Sprintf("%d recordings", s.Recordings)
	if s.Partial > 0 {
		learned += fmt.Sprintf(", and %d that lacked touches", s.Partial)
	}
	rows := [][]string{
		{"snapshot", s.Digest[:16]},
		{"image", countedPages(s.ImagePages)},
		{"learned from", learned},
		{"is brought", countedPages(s.brought())},
		{"file", cli.Bytes(uint64(s.Bytes))},
	}
	if s.HiddenPages > 0 {
		rows = append(rows, []string{"hidden", countedPages(s.HiddenPages) + " were there before they could be touched"})
	}
	return rows
}

func (s *shownSet) write(w io.Writer) {
	table(w, s.facts())
	fmt.Fprintln(w)
	rows := [][]string{{"IMAGE", "PAGES", "SIZE", "START", "REQUEST", "LATER", "WRITTEN"}}
	for _, class := range shownClasses {
		c := s.Image.Of(class)
		row := []string{class.String(), fmt.Sprint(c.Pages), cli.Bytes(c.Pages * workingset.PageSize)}
		for _, n := range []uint64{c.Start, c.Request, c.Later, c.Write} {
			row = append(row, fmt.Sprint(n))
		}
		rows = append(rows, row)
	}
	table(w, rows)

	s.writeTimes(w)
	if s.Image.Pages() > 0 {
		fmt.Fprintf(w, "\nplace in the image, %s each\n", cli.Bytes(s.PlacePages*workingset.PageSize))
		table(w, sparklines(classSparks(s.Places)))
	}
	fmt.Fprintln(w)
	rows = [][]string{{"MUST", "LIKELY", "TAIL", "OBJECT"}}
	objects := s.byPages()
	for _, o := range objects[:min(len(objects), shownRows)] {
		rows = append(rows, append(cells(classCounts(&o.Counts)), objectName(o.Path)))
	}
	table(w, rows)
	writeMore(w, len(objects), "files")
}

func (s *shownSet) writeTimes(w io.Writer) {
	if len(s.Times) == 0 {
		return
	}
	counts := make([]workingset.Counts, 0, len(s.Times))
	rows := [][]string{{"UNTIL", "MUST", "LIKELY", "TAIL"}}
	for i := range s.Times {
		span := &s.Times[i]
		counts = append(counts, span.Counts)
		if span.Pages() > 0 {
			rows = append(rows, append([]string{span.label()}, cells(classCounts(&span.Counts))...))
		}
	}
	fmt.Fprintf(w, "\nfirst touch, from before they ran to %s\n", s.Times[len(s.Times)-1].label())
	table(w, sparklines(classSparks(counts)))
	fmt.Fprintln(w)
	table(w, rows)
}

// byPages returns the objects, those with most pages first.
func (s *shownSet) byPages() []workingset.ObjectCount {
	out := slices.Clone(s.Objects)
	slices.SortStableFunc(out, func(a, b workingset.ObjectCount) int { return cmp.Compare(b.Pages(), a.Pages()) })
	return out
}

func objectName(path string) string {
	if path == "" {
		return "[image]"
	}
	return path
}

func cells(counts []uint64) []string {
	var out []string
	for _, n := range counts {
		out = append(out, fmt.Sprint(n))
	}
	return out
}

func classSparks(counts []workingset.Counts) []spark {
	var out []spark
	for _, class := range shownClasses {
		line := spark{name: class.String()}
		for i := range counts {
			line.values = append(line.values, counts[i].Of(class).Pages)
		}
		out = append(out, line)
	}
	return out
}

// page returns what --html writes.
func (s *shownSet) page() *tracepage.Page {
	p := &tracepage.Page{Title: filepath.Base(s.File)}
	for _, row := range s.facts() {
		p.Facts = append(p.Facts, tracepage.Fact{Name: row[0], Value: row[1]})
	}
	times := tracepage.Chart{
		Title: "Pages by when they are first touched", Series: classNames(),
		Note: "Since the processes began to run; each column lasts until twice the time of the one before.",
	}
	for i := range s.Times {
		times.Columns = append(times.Columns, tracepage.Row{Name: s.Times[i].label(), Counts: classCounts(&s.Times[i].Counts)})
	}
	places := tracepage.Chart{
		Title: "Pages by their place in the image", Series: classNames(),
		Note: fmt.Sprintf("Each column is %s of the image.", cli.Bytes(s.PlacePages*workingset.PageSize)),
	}
	for i := range s.Places {
		name := cli.Bytes(uint64(i) * s.PlacePages * workingset.PageSize)
		places.Columns = append(places.Columns, tracepage.Row{Name: name, Counts: classCounts(&s.Places[i])})
	}
	phases := tracepage.Table{Title: "Pages of the image by phase", Series: []string{"start", "request", "later"}}
	for _, class := range shownClasses {
		c := s.Image.Of(class)
		phases.Rows = append(phases.Rows, tracepage.Row{Name: class.String(), Counts: []uint64{c.Start, c.Request, c.Later}})
	}
	objects := tracepage.Table{Title: "Pages by object", Series: classNames()}
	all := s.byPages()
	for _, o := range all[:min(len(all), pageRows)] {
		objects.Rows = append(objects.Rows, tracepage.Row{Name: objectName(o.Path), Counts: classCounts(&o.Counts)})
	}
	objects.More = leftOut(len(all), "files")
	p.Charts, p.Tables = []tracepage.Chart{times, places}, []tracepage.Table{phases, objects}
	return p
}
