package tier

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"thaw/pagestore"
	"thaw/pagestore/fetch"
	"thaw/pagestore/internal/frame"
)

// spoil changes the pages of a snapshot as they lie in a bucket.
func spoil(t *testing.T, b *memoryBucket, snapshot string, change func([]byte) []byte) {
	t.Helper()
	d := found(t, b, snapshot).Descriptor
	for _, key := range d.keys("ns") {
		if !isContent(key.String()) {
			continue
		}
		m, err := b.get(key.String())
		if err != nil {
			t.Fatal(err)
		}
		if err := b.put(key.String(), change(bytes.Clone(m.data)), true); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDamageInTheOnlyPlaceCostsNoOtherSnapshot(t *testing.T) {
	memory := seeds(1, 400)
	for name, damage := range map[string]struct {
		change func([]byte) []byte
		lies   bool
	}{
		"truncated":          {func(b []byte) []byte { return b[:len(b)/2] }, true},
		"flipped bits":       {func(b []byte) []byte { b[len(b)-1000] ^= 1; return b }, true},
		"garbage":            {func(b []byte) []byte { return bytes.Repeat([]byte("garbage "), len(b)/8) }, true},
		"of a later version": {func(b []byte) []byte { b[8]++; return b }, false},
	} {
		t.Run(name, func(t *testing.T) {
			maker, n := newNode(t), newNode(t)
			b := newMemoryBucket()
			maker.freeze("bad", seeds(5000, 400))
			maker.mustPush("bad", b, nil)
			maker.freeze("good", memory)
			maker.mustPush("good", b, nil)
			spoil(t, b, "bad", damage.change)
			n.sees(bucketPlace(b))
			n.mustPull("bad", nil)
			n.mustPull("good", nil)
			im := n.mustOpen("bad")
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond) // it is waited for in vain
			defer cancel()
			if err := im.Bring(ctx, 0, 400, pagestore.Demand); err == nil {
				t.Error("all of what is damaged has come")
			} else if !damage.lies && !errors.Is(err, fetch.ErrDiffers) {
				t.Errorf("what is damaged: %v", err)
			}
			n.mustCheck("good", memory)
			if s := n.origin.Stats().Sources; len(s) != 1 || (s[0].Lies > 0) != damage.lies {
				t.Errorf("sources: %+v", s)
			}
		})
	}
}

// TestAnObjectWhoseFramesHaveMovedIsReadWhereTheyAre has a place get the same pack with other compression after where its frames lay was read there.
func TestAnObjectWhoseFramesHaveMovedIsReadWhereTheyAre(t *testing.T) {
	var memory []byte
	for i := range 8 * 32 { // a frame that is compressed, and seven that are not
		seed := uint64(2 * i)
		if i < 32 {
			seed++
		}
		memory = append(memory, pageOf(seed)...)
	}
	maker, n := newNode(t), newNode(t)
	b := newMemoryBucket()
	maker.freeze("one", memory)
	maker.mustPush("one", b, nil)
	n.sees(bucketPlace(b))
	n.mustPull("one", nil)
	im := n.mustOpen("one")
	if err := im.Bring(t.Context(), 0, 1, pagestore.Demand); err != nil {
		t.Fatal(err)
	}
	p := found(t, b, "one").Descriptor.Packs[0]
	moved := uncompressed(t, b, PackKey("ns", p.ID), p)
	if err := b.put(PackKey("ns", p.ID).String(), moved, true); err != nil {
		t.Fatal(err)
	}
	n.mustCheck("one", memory)
	for _, s := range n.origin.Stats().Sources {
		if s.Lies > 0 {
			t.Errorf("%s is said to have lied", s.Source)
		}
	}
}

// uncompressed returns a pack as it is in a bucket, with all its frames raw.
func uncompressed(t *testing.T, b *memoryBucket, key Key, p Pack) []byte {
	t.Helper()
	x, err := readIndex(t.Context(), b, key, p.Pages, p.Root)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := frame.Raw(frame.Pack, p.ID, p.Pages, x.Nodes())
	if err != nil {
		t.Fatal(err)
	}
	whole := bytes.Clone(raw.Head())
	if err := readFrames(t.Context(), bucketPlace(b), key, x, 0, x.Frames(), func(_ int, content []byte) error {
		whole = append(whole, content...)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return whole
}
