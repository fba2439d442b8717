package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"thaw/cmd/internal/cli"
	"thaw/control"
	"thaw/pagestore"
)

// topView is what top shows: what thawd says now, and said before, from which rates follow. A value: it asks nobody.
type topView struct {
	before *shownTop // nil: there are no rates
	now    *shownTop
}

// lines returns what write writes, line by line.
func (v *topView) lines() []string {
	var out bytes.Buffer
	v.write(&out)
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
}

func (v *topView) write(w io.Writer) {
	v.writeHead(w)
	if v.now.Tiers != nil {
		fmt.Fprintln(w)
		table(w, v.sourceRows())
	}
	fmt.Fprintln(w)
	table(w, v.sessionRows())
}

func (v *topView) writeHead(w io.Writer) {
	h := v.now.Health
	fmt.Fprintf(w, "thawd %s, process %d, %s for %s; %d sessions run; %s\n", h.Version, h.PID, h.Status, age(v.now.Time.Sub(h.Started)), h.Sessions, h.Store)
	t := v.now.Tiers
	if t == nil {
		fmt.Fprintln(w, "no other place: pages come from this machine only")
		return
	}
	fmt.Fprintln(w, fleet(t))
	limit := "no bound"
	if t.RemoteLimit > 0 {
		limit = "of " + cli.Bytes(t.RemoteLimit)
	}
	fmt.Fprintf(w, "came from elsewhere and is kept: %s, %s; waited for: %d frames\n", cli.Bytes(t.RemoteBytes), limit, t.Waiting)
	if t.Node != "" {
		served := ""
		if v.before != nil && v.before.Tiers != nil {
			served = ", " + v.rate(v.before.Tiers.Served.Bytes, t.Served.Bytes) + " now"
		}
		fmt.Fprintf(w, "served to peers: %s in %d requests%s; %d refused\n", cli.Bytes(t.Served.Bytes), t.Served.Requests, served, t.Served.Refused)
	}
	if m := t.Made; m != nil {
		fmt.Fprintf(w, "prepared for peers: %d snapshots, %d wait, %d left out; %s of %s", m.Prepared, m.Waiting, m.LeftOut, cli.Bytes(m.Bytes), cli.Bytes(m.Limit))
		if m.Failed > 0 {
			fmt.Fprintf(w, "; %d tries failed: %s", m.Failed, m.LastError)
		}
		fmt.Fprintln(w)
	}
	if p := t.Push; p != nil {
		fmt.Fprintf(w, "pushing new snapshots: %d done, %s sent, %d wait", p.Pushed, cli.Bytes(p.SentBytes), p.Waiting)
		if p.Failed > 0 {
			fmt.Fprintf(w, "; %d tries failed: %s", p.Failed, p.LastError)
		}
		fmt.Fprintln(w)
	}
}

// fleet names the other places.
func fleet(t *control.Tiers) string {
	var parts []string
	if t.Node != "" {
		up, down := 0, []string{}
		for _, m := range t.Members {
			switch {
			case m.Node == t.Node:
			case m.Down:
				down = append(down, m.Node)
			default:
				up++
			}
		}
		peers := fmt.Sprintf("node %s sees %d peers", t.Node, up)
		if len(down) > 0 {
			peers += ", and not " + strings.Join(down, ", ")
		}
		parts = append(parts, peers)
	}
	if t.ObjectStore != "" {
		parts = append(parts, "object store "+t.ObjectStore)
	}
	return strings.Join(parts, "; ")
}

// sourceRows is the table of places, those of which most came first.
func (v *topView) sourceRows() [][]string {
	rows := [][]string{{"PLACE", "CAME", "RATE", "DEMAND", "AHEAD", "HOT", "REQUESTS", "FIRST FRAME", "HEDGES WON", "ERRORS", ""}}
	was := map[string]uint64{}
	if v.before != nil && v.before.Tiers != nil {
		for i := range v.before.Tiers.Sources {
			s := &v.before.Tiers.Sources[i]
			was[s.Source] = sum(s).Bytes
		}
	}
	all := slices.Clone(v.now.Tiers.Sources)
	slices.SortStableFunc(all, func(a, b control.TierSource) int { return cmp.Compare(sum(&b).Bytes, sum(&a).Bytes) })
	for i := range all {
		s := &all[i]
		total := sum(s)
		rate := ""
		if v.before != nil {
			rate = v.rate(was[s.Source], total.Bytes)
		}
		first := "not known"
		if s.Typical > 0 {
			first = fmt.Sprintf("%s, 95 %% %s", briefly(s.Typical), briefly(s.Slow))
		}
		hedges := ""
		if total.Hedges > 0 {
			hedges = fmt.Sprintf("%d of %d", total.HedgesWon, total.Hedges)
		}
		rows = append(rows, []string{
			s.Source, cli.Bytes(total.Bytes), rate, cli.Bytes(s.Classes["demand"].Bytes), cli.Bytes(s.Classes["ahead"].Bytes + s.Classes["mirror"].Bytes),
			cli.Bytes(s.Classes["hot"].Bytes), fmt.Sprint(total.Requests), first, hedges, errorText(total.Errors), remark(s, v.now.Time),
		})
	}
	return rows
}

// remark says what is wrong with a place.
func remark(s *control.TierSource, now time.Time) string {
	switch {
	case s.SetAside != nil && s.SetAside.After(now):
		return fmt.Sprintf("LIES: %d times wrong bytes; not asked until %s", s.Lies, when(*s.SetAside))
	case s.Lies > 0:
		return fmt.Sprintf("has delivered wrong bytes %d times", s.Lies)
	}
	return s.LastError
}

// sum adds up what a place did for all classes.
func sum(s *control.TierSource) control.TierClass {
	total := control.TierClass{Errors: map[string]uint64{}}
	for _, c := range s.Classes {
		total.Requests += c.Requests
		total.Hedges += c.Hedges
		total.HedgesWon += c.HedgesWon
		total.Bytes += c.Bytes
		for kind, n := range c.Errors {
			total.Errors[kind] += n
		}
	}
	return total
}

// errorText lists errors by kind, without the kinds of which there were none.
func errorText(errors map[string]uint64) string {
	var parts []string
	for kind, n := range errors {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, kind))
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// sessionRows is the table of sessions: those that run first, the newest first.
func (v *topView) sessionRows() [][]string {
	rows := [][]string{{"SESSION", "SNAPSHOT", "STATE", "AGE", "MEMORY", "RATE", "FAULTS", "WAITED", "WAS HERE", "PEERS", "OBJECT STORE", "ERROR"}}
	was := map[string]uint64{}
	if v.before != nil {
		for i := range v.before.Sessions {
			was[v.before.Sessions[i].ID] = v.before.Sessions[i].Progress.PagesDone
		}
	}
	all := slices.Clone(v.now.Sessions)
	slices.SortStableFunc(all, func(a, b control.Session) int {
		return cmp.Or(cmp.Compare(ended(&a), ended(&b)), b.Created.Compare(a.Created))
	})
	for i := range all {
		s := &all[i]
		rate, end := "", v.now.Time
		if s.Ended != nil {
			end = *s.Ended
		}
		if pages, ok := was[s.ID]; ok && !s.State.Ended() {
			rate = v.rate(pages*pagestore.PageSize, s.Progress.PagesDone*pagestore.PageSize)
		}
		here, peers, far := "all", "", ""
		if t := s.Tiers; t != nil {
			here, peers, far = percent(t.LocalPages, t.StoredPages), cli.Bytes(t.Peer.Bytes), cli.Bytes(t.ObjectStore.Bytes)
		}
		rows = append(rows, []string{
			s.ID, source(s), string(s.State), age(end.Sub(s.Created)), memory(&s.Progress), rate, fmt.Sprint(faults(s)), briefly(s.Counters.Waited), here, peers, far, failure(s),
		})
	}
	return rows
}

// failure says why a session failed.
func failure(s *control.Session) string {
	if p := s.FailedPage; p != nil && p.Reason != "" {
		return s.Error + ": " + p.Reason
	}
	return s.Error
}

// ended orders sessions: those that run come first.
func ended(s *control.Session) int {
	if s.State.Ended() {
		return 1
	}
	return 0
}

// rate says how many bytes a second came in between.
func (v *topView) rate(before, now uint64) string {
	past := v.now.Time.Sub(v.before.Time).Seconds()
	if past <= 0 || now < before { // thawd is another one
		return ""
	}
	return cli.Bytes(uint64(float64(now-before)/past)) + "/s"
}

// briefly returns a number of seconds for people.
func briefly(s float64) string { return cli.Seconds(time.Duration(s * float64(time.Second))) }
