package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"thaw/cmd/internal/cli"
	"thaw/control"
	"thaw/pagestore"
)

// localOf looks how much of a snapshot is on this machine.
func localOf(store *pagestore.Store, name pagestore.Name) (pagestore.Local, error) {
	snap, err := store.Snapshot(name)
	if err != nil {
		return pagestore.Local{}, err
	}
	defer snap.Close()
	return snap.Local()
}

// percent says what share n is of all. It is 100 % only if nothing is missing, and 0 % only if nothing is there.
func percent(n, all uint64) string {
	switch {
	case n >= all:
		return "100 %"
	case n == 0:
		return "0 %"
	}
	return fmt.Sprintf("%d %%", min(max(n*100/all, 1), 99))
}

// remotePart is what snapshot inspect says of a snapshot that came from elsewhere.
type remotePart struct {
	Descriptor pagestore.Digest `json:"descriptor"`        // of what it was pulled as
	SetBytes   uint64           `json:"working_set_bytes"` // pages that a restore wants first; 0 if that is not known

	// Places are where the rest may come from, the nearest first; Unknown says why they are not known.
	Places  []string `json:"places"`
	Unknown string   `json:"unknown,omitempty"`
}

// placesPatience is how long thawd may take to say which places it knows.
const placesPatience = 3 * time.Second

// remotePart asks thawd for the places that it knows.
func (a *app) remotePart(ctx context.Context, remote *pagestore.Remote) *remotePart {
	out := &remotePart{Descriptor: sha256.Sum256(remote.Descriptor), Places: []string{}}
	if remote.Hot != nil {
		out.SetBytes = uint64(remote.Hot.Pages) * pagestore.PageSize
	}
	ctx, cancel := context.WithTimeout(ctx, placesPatience)
	defer cancel()
	c := a.client()
	defer c.Close()
	tiers, err := c.Tiers(ctx)
	if err != nil {
		out.Unknown = err.Error()
		return out
	}
	out.Places = places(tiers)
	return out
}

// places returns the places that thawd can ask, the nearest first.
func places(t *control.Tiers) []string {
	out := []string{}
	for _, m := range t.Members {
		if m.Node != t.Node && !m.Down {
			out = append(out, "node "+m.Node)
		}
	}
	if t.ObjectStore != "" {
		out = append(out, t.ObjectStore)
	}
	return out
}

// localRows says how much of the snapshot is here.
func (i *inspected) localRows() [][]string {
	const page = pagestore.PageSize
	l := &i.Local
	if i.Remote == nil {
		if l.LocalPages == l.StoredPages {
			return nil
		}
		return [][]string{{"missing", fmt.Sprintf("%s: thaw snapshot verify says more", cli.Bytes((l.StoredPages-l.LocalPages)*page))}}
	}
	whole := 0
	for _, p := range l.Packs {
		if p.Complete {
			whole++
		}
	}
	rows := [][]string{
		{"descriptor", i.Remote.Descriptor.String()},
		{"here", fmt.Sprintf("%s of %s (%s); %d of %d packs are whole", cli.Bytes(l.LocalPages*page), cli.Bytes(l.StoredPages*page),
			percent(l.LocalPages, l.StoredPages), whole, len(l.Packs))},
	}
	if i.Remote.SetBytes > 0 {
		rows = append(rows, []string{"a restore wants first", cli.Bytes(i.Remote.SetBytes)})
	}
	if l.LocalPages == l.StoredPages {
		return rows
	}
	from := strings.Join(i.Remote.Places, ", ")
	switch {
	case i.Remote.Unknown != "":
		from = "not known: " + i.Remote.Unknown
	case from == "":
		from = "nowhere: thawd knows no other place"
	}
	return append(rows, []string{"the rest comes from", from})
}

// packRows lists the packs, with what of them is here.
func (i *inspected) packRows() [][]string {
	const page = pagestore.PageSize
	rows := [][]string{{"PACK", "NEEDED", "HERE", "", "ON DISK", "STATE"}}
	for _, p := range i.Local.Packs {
		state := "elsewhere"
		switch {
		case p.Complete:
			state = "whole"
		case p.LocalPages > 0 || p.DiskBytes > 0:
			state = "in part"
		case !p.Remote:
			state = "missing"
		}
		rows = append(rows, []string{p.ID.String(), cli.Bytes(p.StoredPages * page), cli.Bytes(p.LocalPages * page), percent(p.LocalPages, p.StoredPages),
			cli.Bytes(uint64(p.DiskBytes)), state})
	}
	return rows
}
