package objectstore

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"thaw/pagestore/blob"
)

func TestURLsNamePlaces(t *testing.T) {
	for raw, want := range map[string]location{
		"s3://bucket":                   {scheme: "s3", bucket: "bucket"},
		"s3://bucket/":                  {scheme: "s3", bucket: "bucket"},
		"s3://bucket/a/b":               {scheme: "s3", bucket: "bucket", prefix: "a/b"},
		"s3://bucket/a/b/?exclusive=no": {scheme: "s3", bucket: "bucket", prefix: "a/b", exclusive: "no"},
		"s3://my.bucket-1?endpoint=http://[::1]:9000&region=eu-1":  {scheme: "s3", bucket: "my.bucket-1", endpoint: "http://[::1]:9000", region: "eu-1"},
		"s3://bucket?endpoint=https%3A%2F%2Fhost%2F&exclusive=yes": {scheme: "s3", bucket: "bucket", endpoint: "https://host", exclusive: "yes"},
		"gs://bucket/x":      {scheme: "gs", bucket: "bucket", prefix: "x"},
		"file:///a/b c/../d": {scheme: "file", folder: "/a/d"},
		"file://localhost/a": {scheme: "file", folder: "/a"},
	} {
		got, err := parse(raw)
		if err != nil {
			t.Errorf("%s: %v", raw, err)
		} else if diff := cmp.Diff(want, got, cmp.AllowUnexported(location{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", raw, diff)
		}
	}
}

func TestURLsThatNameNoPlaceAreRefused(t *testing.T) {
	for _, raw := range []string{
		"", "bucket", "/folder", "s3:bucket", "s3://", "s3:///prefix", "http://bucket", "S4://bucket", "azblob://container", "s3://b", "s3://bucket_", "s3://bucket:80",
		"s3://key:hunter2@bucket", "s3://hunter2@bucket", "s3://bucket#hunter2", "s3://bucket/../x", "s3://bucket/.x", "s3://bucket//x", "s3://bucket/a%20b",
		"s3://bucket?secret=hunter2", "s3://bucket?region=", "s3://bucket?region=EU", "s3://bucket?region=a&region=b", "s3://bucket?exclusive=maybe", "s3://bucket?a;b",
		"s3://bucket?endpoint=host:80", "s3://bucket?endpoint=ftp://host", "s3://bucket?endpoint=http://", "s3://bucket?endpoint=http://host/path",
		"s3://bucket?endpoint=http://user:hunter2@host", "s3://bucket?endpoint=http://host%3Fx=hunter2", "s3://bucket?endpoint=http://host%23", "s3://bucket?endpoint=http://:80",
		"s3://bucket/" + strings.Repeat("a/", 300), "file://host/folder", "file://folder", "file:relative", "file:///a?b=c", "file:///a%00b", "s3://bucket\x00",
	} {
		if loc, err := parse(raw); !errors.Is(err, ErrURL) {
			t.Errorf("%q: %+v, %v", raw, loc, err)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the error tells the secret: %v", raw, err)
		}
	}
}

func TestAFileURLIsAFolder(t *testing.T) {
	dir := t.TempDir()
	b, err := Open(t.Context(), "file://"+dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := b.(*blob.Dir); !ok || b.String() != dir {
		t.Errorf("it is %T %v", b, b)
	}
	if b, err := Open(t.Context(), "file://"+dir+"/missing/folder"); err == nil || b != nil {
		t.Errorf("a folder in one that is missing: %v, %v", b, err)
	}
}

func TestTheSchemeKnowsItsServer(t *testing.T) {
	for raw, want := range map[string]string{
		"s3://bucket": amazonEndpoint, "gs://bucket": googleEndpoint, "gs://bucket?endpoint=http://host:1": "http://host:1",
	} {
		loc, err := parse(raw)
		if err != nil || loc.server() != want {
			t.Errorf("%s is at %s, %v, want %s", raw, loc.server(), err, want)
		}
		if s, err := open(loc); err != nil || s.String() != loc.String() {
			t.Errorf("%s: %v, %v", raw, s, err)
		}
	}
}

func FuzzURL(f *testing.F) {
	for _, raw := range []string{
		"s3://bucket/a/b?endpoint=http://host:80&region=r&exclusive=yes", "gs://bucket", "file:///a/b", "s3://u:p@bucket", "s3://bucket?endpoint=http%3A%2F%2F[::1]:1", "file:///%2e%2e/x",
		"s3://bucket?endpoint=http://host%2525",
	} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		loc, err := parse(raw)
		if err != nil {
			if !errors.Is(err, ErrURL) || loc != (location{}) {
				t.Fatalf("%q: %+v, %v", raw, loc, err)
			}
			return
		}
		again, err := parse(loc.String())
		if err != nil || again != loc {
			t.Fatalf("%q is %+v, called %q, which is %+v, %v", raw, loc, loc.String(), again, err)
		}
		if loc.scheme == schemeFile {
			return
		}
		if _, err := open(loc); err != nil && !errors.Is(err, ErrURL) {
			t.Fatalf("%q: %v", raw, err)
		}
	})
}
