package registry

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"thaw/function/version"
)

// App is an app as it is kept.
type App struct {
	Name string
	// Current is the version that new instances get; zero if a first deployment died before it could say so.
	Current version.Key
	// Versions are all that are there, the one deployed last first; those that cannot be read at the end.
	Versions []Entry
}

// Entry is a version in a list.
type Entry struct {
	Key version.Key
	// Record and Stats are what is known. Err says why one of them cannot be read; it is nil then, or without what is not known.
	Record *Record
	Stats  *Stats
	Err    error
}

// Apps returns the names of all apps, sorted.
func (r *Registry) Apps() ([]string, error) {
	entries, err := os.ReadDir(r.path(appsDir))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && version.CheckName(e.Name()) == nil && r.hasVersions(e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// hasVersions tells an app from the folders of one whose first deployment died, or whose removal did.
func (r *Registry) hasVersions(app string) bool {
	entries, err := os.ReadDir(filepath.Join(r.appDir(app), versionsDir))
	return err == nil && len(entries) > 0
}

// App returns the app with all its versions. The error is [ErrNotFound] if there is none.
func (r *Registry) App(name string) (*App, error) {
	if err := version.CheckName(name); err != nil {
		return nil, fmt.Errorf("app %w", err)
	}
	entries, err := os.ReadDir(filepath.Join(r.appDir(name), versionsDir))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil, fmt.Errorf("app %s: %w", name, ErrNotFound)
	} else if err != nil {
		return nil, err
	}
	a := &App{Name: name}
	for _, e := range entries {
		if key, err := version.ParseKey(e.Name()); err == nil {
			a.Versions = append(a.Versions, r.entry(name, key))
		}
	}
	slices.SortStableFunc(a.Versions, func(a, b Entry) int {
		switch {
		case a.Record != nil && b.Record != nil:
			return b.Record.Deployed.Compare(a.Record.Deployed)
		case a.Record != nil:
			return -1
		case b.Record != nil:
			return 1
		}
		return 0
	})
	a.Current, err = r.Current(name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	return a, nil
}

func (r *Registry) entry(app string, key version.Key) Entry {
	e := Entry{Key: key}
	var statsErr error
	e.Record, e.Err = r.Version(app, key)
	e.Stats, statsErr = r.VersionStats(app, key)
	e.Err = errors.Join(e.Err, statsErr)
	return e
}

// Current returns the key of the version that new instances get. The error is [ErrNotFound] if there is none.
func (r *Registry) Current(app string) (version.Key, error) {
	if err := version.CheckName(app); err != nil {
		return version.Key{}, fmt.Errorf("app %w", err)
	}
	path := filepath.Join(r.appDir(app), currentFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return version.Key{}, fmt.Errorf("app %s: %w", app, ErrNotFound)
	} else if err != nil {
		return version.Key{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 1<<10))
	if err != nil {
		return version.Key{}, err
	}
	line, ok := strings.CutSuffix(string(text), "\n")
	key, err := version.ParseKey(line)
	if !ok || err != nil {
		return version.Key{}, corruptf("%s holds %q, want the key of a version", path, text)
	}
	return key, nil
}

// Version returns a version of an app. The error is [ErrNotFound] if there is none.
func (r *Registry) Version(app string, key version.Key) (*Record, error) {
	if err := version.CheckName(app); err != nil {
		return nil, fmt.Errorf("app %w", err)
	}
	rec := new(Record)
	err := readFile(filepath.Join(r.versionDir(app, key), versionFile), rec)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("version %s of app %s: %w", key.Short(), app, ErrNotFound)
	case err != nil:
		return nil, err
	case rec.Key != key || rec.App() != app:
		return nil, corruptf("version %s of app %s is in the folder of %s of %s", rec.Key.Short(), rec.App(), key.Short(), app)
	}
	return rec, nil
}

// VersionStats returns what is known of a version's snapshots: nothing if there is no such version.
func (r *Registry) VersionStats(app string, key version.Key) (*Stats, error) {
	return readStats(r.versionDir(app, key))
}

// TemplateStats returns what is known of a template's snapshots: nothing if there is none.
func (r *Registry) TemplateStats(key version.Key) (*Stats, error) {
	return readStats(r.templateDir(key))
}

// Templates returns the keys of all templates, sorted.
func (r *Registry) Templates() ([]version.Key, error) {
	entries, err := os.ReadDir(r.path(templatesDir))
	if err != nil {
		return nil, err
	}
	var out []version.Key
	for _, e := range entries {
		if key, err := version.ParseKey(e.Name()); err == nil {
			out = append(out, key)
		}
	}
	return out, nil
}

func readStats(dir string) (*Stats, error) {
	s := new(Stats)
	if err := readFile(filepath.Join(dir, statsFile), s); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return s, nil
}
