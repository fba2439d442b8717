package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"thaw/pagestore"
	"thaw/restore/criu"
)

// ImportOptions are the options of [Import].
type ImportOptions struct {
	// Name is the name of the new snapshot.
	Name pagestore.Name

	// Parent is the snapshot that the process was thawed from, if any; for the record.
	Parent pagestore.Name

	// Host is what the snapshot says of its host. Default: the host that we run on, frozen in an unknown way.
	Host *Host

	// Workers is the number of goroutines that hash. Default: the store's choice.
	Workers int

	// Progress is called up to ten times a second. Default: nobody is told.
	Progress func(pagestore.Progress)
}

// Import makes a snapshot of the CRIU images in dir. The images stay as they are. Errors wrap those of restore/criu and
// pagestore; after an error the store is as it was.
func Import(ctx context.Context, store *pagestore.Store, dir string, o ImportOptions) (_ *pagestore.Report, err error) {
	images, err := criu.OpenBacked(dir, func(path string) (criu.Backing, error) {
		p, err := store.PackFile(o.Name.Namespace, path)
		if p == nil || err != nil {
			return nil, err // not a nil pointer in an interface that is not nil
		}
		return p, nil
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, images.Close()) }()
	in, err := input(images)
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", dir, err)
	}
	host := o.Host
	if host == nil {
		here := thisHost()
		host = &here
	}
	if in.Host, err = json.Marshal(host); err != nil {
		return nil, err
	}
	in.Parent = o.Parent
	report, err := store.Import(ctx, o.Name, in, &pagestore.ImportOptions{Workers: o.Workers, Progress: o.Progress})
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", dir, err)
	}
	return &report, nil
}

// input says in the store's words what the images hold.
func input(images *criu.Images) (pagestore.Input, error) {
	in := pagestore.Input{Skeleton: images.WriteSkeleton}
	files := make(map[int]int) // positions in in.Files
	for i := range images.Tasks {
		t := &images.Tasks[i]
		if t.PID <= 0 {
			return in, fmt.Errorf("%w: task %d", criu.ErrImages, t.PID)
		}
		space := pagestore.Space{ID: uint32(t.PID), Zombie: t.Zombie}
		for _, r := range t.Regions {
			region := pagestore.Region{Start: r.Start, End: r.End}
			if r.Splittable {
				region.Flags |= pagestore.RegionSplittable
			}
			if r.WipeOnFork {
				region.Flags |= pagestore.RegionWipeOnFork
			}
			space.Regions = append(space.Regions, region)
		}
		for _, r := range t.Lazy {
			file, ok := files[r.File]
			if !ok {
				file = len(in.Files)
				files[r.File] = file
				in.Files = append(in.Files, images.Reader(r.File))
			}
			space.Runs = append(space.Runs, pagestore.Run{Addr: r.Addr, Pages: r.Pages, File: file, Offset: r.Offset})
		}
		in.Spaces = append(in.Spaces, space)
	}
	return in, nil
}
