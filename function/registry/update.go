package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"thaw/function/version"
	"thaw/internal/durable"
)

// UpdateVersion changes what is known of a version's snapshots: change gets what there is, and what it leaves is written, durably, before
// UpdateVersion returns. If change returns an error nothing is written, and that is the error. Updates of one version happen one after
// the other. Errors are [ErrNotFound], [ErrNoSpace] and [ErrCorrupt].
func (r *Registry) UpdateVersion(ctx context.Context, app string, key version.Key, change func(*Stats) error) error {
	if err := version.CheckName(app); err != nil {
		return fmt.Errorf("app %w", err)
	}
	err := r.update(ctx, r.versionDir(app, key), change)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("version %s of app %s: %w", key.Short(), app, ErrNotFound)
	}
	return err
}

// UpdateTemplate is UpdateVersion for a template, which it makes if there is none.
func (r *Registry) UpdateTemplate(ctx context.Context, key version.Key, change func(*Stats) error) error {
	if err := durable.MkdirAll(r.fs, r.path(templatesDir), key.String()); err != nil {
		return classify(err)
	}
	return r.update(ctx, r.templateDir(key), change)
}

// update locks the folder, not the file, which is another one after each update.
func (r *Registry) update(ctx context.Context, dir string, change func(*Stats) error) error {
	unlock, err := lock(ctx, dir)
	if err != nil {
		return err
	}
	defer unlock()
	stats, err := readStats(dir)
	if err != nil {
		return err
	}
	if err := change(stats); err != nil {
		return err
	}
	text, err := encode(stats)
	if err != nil {
		return fmt.Errorf("%s: %w", statsFile, err)
	}
	return classify(durable.Replace(r.fs, filepath.Join(dir, statsFile), text))
}
