package objectstore

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"thaw/pagestore/blob"
)

// ErrURL: what was given to [Open] names no place.
var ErrURL = errors.New("bad URL of a place for blobs")

// Schemes.
const (
	schemeS3   = "s3"
	schemeGS   = "gs"
	schemeFile = "file"
)

const (
	amazonEndpoint = "https://s3.amazonaws.com"
	googleEndpoint = "https://storage.googleapis.com"
	// otherRegion is what stores that have no regions take for granted.
	otherRegion = "us-east-1"
)

// maxPrefix leaves a key of the longest sort room in the 1024 bytes that S3 allows.
const maxPrefix = blob.MaxKey - 1

// endpointURL is a name or an address of either family, with a port perhaps.
var endpointURL = regexp.MustCompile(`^https?://([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?/?$`)

// location is what a URL says.
type location struct {
	scheme    string
	bucket    string
	prefix    string // a key, or nothing
	endpoint  string // a URL of scheme, host and port; empty for the scheme's own
	region    string // empty: the library finds out, or otherRegion
	exclusive string // "yes", "no", or empty: ask
	folder    string // of the scheme file: an absolute path
}

// bucketName is Amazon's rule for names of buckets, and old buckets' capitals and underscores.
var bucketName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]$`)

// regionName is wider than any cloud's.
var regionName = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

// parse reads a URL. It quotes none in errors: there may be a password in it.
func parse(raw string) (location, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return location{}, fmt.Errorf("%w: it does not parse", ErrURL)
	}
	switch {
	case u.User != nil:
		return location{}, fmt.Errorf("%w: credentials do not belong there; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", ErrURL)
	case u.Fragment != "" || strings.Contains(raw, "#"):
		return location{}, fmt.Errorf("%w: it has a fragment", ErrURL)
	case u.Opaque != "":
		return location{}, fmt.Errorf("%w: %s: wants // behind it", ErrURL, u.Scheme)
	}
	switch u.Scheme {
	case schemeFile:
		return parseFile(u)
	case schemeS3, schemeGS:
		return parseBucket(u)
	case "azblob", "azure":
		return location{}, fmt.Errorf("%w: Azure does not speak S3: name a gateway before it (versitygw azure) as s3://BUCKET?endpoint=URL", ErrURL)
	}
	return location{}, fmt.Errorf("%w: scheme %q: want s3, gs or file", ErrURL, u.Scheme)
}

func parseFile(u *url.URL) (location, error) {
	switch {
	case u.Host != "" && u.Host != "localhost":
		return location{}, fmt.Errorf("%w: file://%s names a machine: a folder has three slashes, file:///FOLDER", ErrURL, u.Host)
	case u.RawQuery != "" || u.ForceQuery:
		return location{}, fmt.Errorf("%w: a folder has no settings", ErrURL)
	case !filepath.IsAbs(u.Path) || strings.Contains(u.Path, "\x00"):
		return location{}, fmt.Errorf("%w: want an absolute path, file:///FOLDER", ErrURL)
	}
	return location{scheme: schemeFile, folder: filepath.Clean(u.Path)}, nil
}

func parseBucket(u *url.URL) (location, error) {
	loc := location{scheme: u.Scheme, bucket: u.Host, prefix: strings.TrimSuffix(strings.TrimPrefix(u.Path, "/"), "/")}
	if !bucketName.MatchString(loc.bucket) {
		return location{}, fmt.Errorf("%w: %q is no name of a bucket", ErrURL, loc.bucket)
	}
	if loc.prefix != "" {
		if err := blob.ValidateKey(loc.prefix); err != nil {
			return location{}, fmt.Errorf("%w: what follows the bucket: %w", ErrURL, err)
		}
		if len(loc.prefix) > maxPrefix {
			return location{}, fmt.Errorf("%w: what follows the bucket has more than %d bytes", ErrURL, maxPrefix)
		}
	}
	settings, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return location{}, fmt.Errorf("%w: its settings do not parse", ErrURL)
	}
	for name, values := range settings {
		if len(values) != 1 || values[0] == "" {
			return location{}, fmt.Errorf("%w: setting %q wants one value", ErrURL, name)
		}
		if err := loc.set(name, values[0]); err != nil {
			return location{}, err
		}
	}
	return loc, nil
}

// set takes one setting.
func (l *location) set(name, value string) error {
	switch name {
	case "region":
		if !regionName.MatchString(value) {
			return fmt.Errorf("%w: region %q", ErrURL, value)
		}
		l.region = value
	case "exclusive":
		if value != "yes" && value != "no" {
			return fmt.Errorf("%w: exclusive=%q: want yes or no", ErrURL, value)
		}
		l.exclusive = value
	case "endpoint":
		if !endpointURL.MatchString(value) {
			return fmt.Errorf("%w: the endpoint: want http://HOST:PORT or https://HOST:PORT and nothing else", ErrURL)
		}
		l.endpoint = strings.TrimSuffix(value, "/")
	default:
		return fmt.Errorf("%w: setting %q: want endpoint, region or exclusive", ErrURL, name)
	}
	return nil
}

// String returns a URL that parses to the same location.
func (l location) String() string {
	if l.scheme == schemeFile {
		return (&url.URL{Scheme: l.scheme, Path: l.folder}).String()
	}
	u := url.URL{Scheme: l.scheme, Host: l.bucket}
	if l.prefix != "" {
		u.Path = "/" + l.prefix
	}
	settings := url.Values{}
	for name, value := range map[string]string{"endpoint": l.endpoint, "region": l.region, "exclusive": l.exclusive} {
		if value != "" {
			settings.Set(name, value)
		}
	}
	u.RawQuery = settings.Encode()
	return u.String()
}
