package tier

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"thaw/pagestore"
	"thaw/pagestore/blob"
)

func TestListingsSayWhatNamesLeadTo(t *testing.T) {
	maker := newNode(t)
	maker.freeze("one", seeds(1, 70))
	maker.freeze("two", seeds(50, 70))
	b := newMemoryBucket()
	digests := map[string]pagestore.Digest{}
	for _, name := range []string{"two", "one"} {
		digests[name] = maker.mustPush(name, b, nil).Descriptor
	}
	broken := "not a name\n"
	for _, key := range []string{"v1/other/names/broken", "v1/ns-2/packs/nonsense"} {
		if err := b.Create(t.Context(), key, bytes.NewReader([]byte(broken)), int64(len(broken))); err != nil {
			t.Fatal(err)
		}
	}

	for namespace, want := range map[string][]string{"": {"ns/one", "ns/two", "other/broken"}, "ns": {"ns/one", "ns/two"}, "none": nil} {
		all, err := List(t.Context(), b, namespace)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range all {
			got = append(got, l.Name.String())
			switch {
			case l.Name.Namespace == "other":
				if !errors.Is(l.Err, pagestore.ErrCorrupt) || l.Descriptor != nil {
					t.Errorf("%s is listed with %v and error %v", l.Name, l.Descriptor, l.Err)
				}
			case l.Err != nil || l.Digest != digests[l.Name.Snapshot] || l.Descriptor.Snapshot != l.Name.Snapshot:
				t.Errorf("%s is listed as %+v", l.Name, l)
			case l.Modified == 0:
				t.Errorf("%s has no time", l.Name)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("listing of %q (-want +got):\n%s", namespace, diff)
		}
	}
	if got, err := Namespaces(t.Context(), b); err != nil || !cmp.Equal(got, []string{"ns", "other"}) {
		t.Errorf("Namespaces = %q, %v", got, err)
	}
	if _, err := List(t.Context(), b, "a/b"); !errors.Is(err, pagestore.ErrName) {
		t.Errorf("List of a namespace that is none: %v", err)
	}
}

func TestAListingLeavesOutWhatIsGone(t *testing.T) {
	maker := newNode(t)
	maker.freeze("one", seeds(1, 70))
	b := newMemoryBucket()
	maker.mustPush("one", b, nil)
	b.before = func(ctx context.Context, op, key string) error {
		if op == "open" && key == "v1/ns/names/one" {
			return b.Delete(ctx, key)
		}
		return nil
	}
	if all, err := List(t.Context(), b, "ns"); err != nil || len(all) != 0 {
		t.Errorf("List = %+v, %v; the name was removed after it was listed", all, err)
	}
}

func TestAListingThatFailsIsAnError(t *testing.T) {
	b := newMemoryBucket()
	b.before = func(context.Context, string, string) error { return blob.ErrDenied }
	if _, err := List(t.Context(), b, ""); !errors.Is(err, blob.ErrDenied) {
		t.Errorf("List: %v", err)
	}
	if _, err := Namespaces(t.Context(), b); !errors.Is(err, blob.ErrDenied) {
		t.Errorf("Namespaces: %v", err)
	}
}
