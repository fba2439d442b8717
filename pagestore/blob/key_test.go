package blob_test

import (
	"errors"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"thaw/pagestore/blob"
)

func FuzzKey(f *testing.F) {
	for _, key := range []string{
		"", "a", "v1/ns/packs/0123", "a/../b", "a//b", "/", "a/", ".a", "a.b-c_d@e=f", "ä", "a\x00b", strings.Repeat("k", 256), strings.Repeat("k/", 16), strings.Repeat("k/", 15) + "k",
		strings.Repeat(strings.Repeat("k", 254)+"/", 2) + "kk",
	} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		err := blob.ValidateKey(key)
		if err != nil && !errors.Is(err, blob.ErrKey) {
			t.Fatalf("%q: %v", key, err)
		}
		if err == nil {
			checkKey(t, key)
		}
		// A prefix is what some key begins with.
		begins := key == "" || err == nil || blob.ValidateKey(key+"a") == nil
		if got := blob.ValidatePrefix(key); (got == nil) != begins {
			t.Fatalf("%q as a prefix: %v, but a key begins so: %t", key, got, begins)
		}
	})
}

// checkKey checks what places rely on.
func checkKey(t *testing.T, key string) {
	if path.Clean(key) != key || !filepath.IsLocal(key) || strings.ContainsAny(key, "\x00\\?#% \n") || len(key) > blob.MaxKey {
		t.Fatalf("%q is no path that could be used as it is", key)
	}
	for i := range key {
		if err := blob.ValidatePrefix(key[:i]); err != nil {
			t.Fatalf("%q is a key, its beginning is none: %v", key, err)
		}
	}
}
