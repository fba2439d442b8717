package objectstore_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"thaw/internal/testenv"
	"thaw/pagestore/blob"
	"thaw/pagestore/blob/blobtest"
	"thaw/pagestore/blob/objectstore"
	"thaw/pagestore/blob/objectstore/objectstoretest"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// open opens a place, and closes it when the test ends.
func open(t testing.TB, url string) blob.Bucket {
	t.Helper()
	b, err := objectstore.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if c, ok := b.(io.Closer); ok {
		t.Cleanup(func() {
			if err := c.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	return b
}

func TestS3(t *testing.T) {
	server := objectstoretest.Start(t)
	buckets := 0
	for _, prefix := range []string{"", "with/a-prefix"} {
		t.Run(fmt.Sprintf("prefix %q", prefix), func(t *testing.T) {
			blobtest.Run(t, func(t *testing.T) blob.Bucket {
				buckets++
				return open(t, server.Bucket(t, fmt.Sprintf("bucket-%d", buckets), prefix))
			})
		})
	}
}

func TestManyBlobsAreListedPageByPage(t *testing.T) {
	b := open(t, objectstoretest.Start(t).Bucket(t, "bucket", "prefix"))
	const n = 1100 // a page of S3 has 1000
	var want []string
	for i := range n {
		key := fmt.Sprintf("packs/%04d", i)
		want = append(want, key)
		if err := b.Create(t.Context(), key, strings.NewReader("x"), 1); err != nil {
			t.Fatal(err)
		}
	}
	got, err := blobtest.Keys(t.Context(), b, "packs/")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("listed (-want +got):\n%s", diff)
	}
}

func TestTheServerOfTheTestsIsExclusive(t *testing.T) {
	b := open(t, objectstoretest.Start(t).Bucket(t, "bucket", ""))
	if b.Exclusive() {
		t.Error("the bucket is exclusive before anybody has asked")
	}
	if err := b.Create(t.Context(), "key", strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	if !b.Exclusive() {
		t.Error("the server does not obey If-None-Match")
	}
}

func TestPlacesInOneBucketDoNotSeeEachOther(t *testing.T) {
	server := objectstoretest.Start(t)
	a, ab := open(t, server.Bucket(t, "bucket", "a")), open(t, server.Bucket(t, "bucket", "ab"))
	for _, b := range []blob.Bucket{a, ab} {
		if err := b.Create(t.Context(), "key", strings.NewReader(b.String()), int64(len(b.String()))); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range []blob.Bucket{a, ab} {
		got, err := blobtest.Read(t.Context(), b, "key", 0, -1)
		if err != nil || string(got) != b.String() {
			t.Errorf("%v has %q, %v", b, got, err)
		}
		if keys, err := blobtest.Keys(t.Context(), b, ""); err != nil || len(keys) != 1 {
			t.Errorf("%v lists %q, %v", b, keys, err)
		}
	}
}

func TestCredentialsComeFromTheChain(t *testing.T) {
	url := objectstoretest.Start(t).Bucket(t, "bucket", "")
	key, secret := os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY")
	t.Run("wrong ones are denied", func(t *testing.T) {
		t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
		b := open(t, url)
		_, err := b.Size(t.Context(), "key")
		wantDenied(t, "size", err)
		wantDenied(t, "create", b.Create(t.Context(), "key", strings.NewReader("x"), 1))
		_, err = blobtest.Keys(t.Context(), b, "")
		wantDenied(t, "list", err)
	})
	t.Run("the shared file is read where the environment has none", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "credentials")
		text := fmt.Sprintf("[other]\naws_access_key_id = %s\naws_secret_access_key = %s\n", key, secret)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("AWS_ACCESS_KEY_ID", "")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "")
		t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
		t.Setenv("AWS_PROFILE", "other")
		if err := open(t, url).Create(t.Context(), "key", strings.NewReader("x"), 1); err != nil {
			t.Error(err)
		}
	})
}

func wantDenied(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, blob.ErrDenied) {
		t.Errorf("%s: error is %v", what, err)
	}
}

func TestAMissingBucketIsNoMissingBlob(t *testing.T) {
	url := objectstoretest.Start(t).Bucket(t, "bucket", "")
	b := open(t, strings.Replace(url, "s3://bucket", "s3://other-bucket", 1))
	_, err := blobtest.Read(t.Context(), b, "key", 0, -1)
	if !is(err, nil) {
		t.Errorf("read: %v", err)
	}
	if err := b.Create(t.Context(), "key", strings.NewReader("x"), 1); !is(err, nil) {
		t.Errorf("create: %v", err)
	}
}
