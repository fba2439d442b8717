package fetch

import (
	"log/slog"
	"time"
)

// distrust is until when wrong bytes count: longer each time, unless the last time is long ago. The zero value is trust.
type distrust struct {
	times int
	until time.Time
}

func (d *distrust) add(o *Options, now time.Time) {
	if now.Before(d.until) {
		return // it was on its way when the others came
	}
	if now.Sub(d.until) > o.MaxAside {
		d.times = 0
	}
	d.times++
	d.until = now.Add(doubled(o.Aside, o.MaxAside, d.times))
}

// lied notes that it has delivered wrong bytes of an object. One object may be damaged where it lies, or be wrong since it was put there: only who lies about
// several is set aside as a whole.
func (s *source) lied(ob Object, err error, o *Options, now time.Time) {
	if s.lies > 0 && s.lieOf != ob && now.Sub(s.lieAt) <= o.MaxAside {
		s.aside.add(o, now)
	}
	s.lies++
	s.lie, s.lieOf, s.lieAt = err, ob, now
}

// lie is what came of wrong bytes.
type lie struct {
	source string
	object Object
	err    error
	all    bool          // the source is set aside
	length time.Duration // for how long, or for how long it is not asked for the object
}

// liedLocked notes that a source has delivered wrong bytes of an object.
func (f *Fetcher) liedLocked(ob *object, s *source, err error, now time.Time) *lie {
	ob.lied(s, &f.opts, now)
	s.lied(ob.name, err, &f.opts, now)
	return &lie{s.name, ob.name, err, now.Before(s.aside.until), ob.distrusted(s).Sub(now)}
}

// logLie tells people. It is called without the lock.
func (f *Fetcher) logLie(l *lie, more ...any) {
	message := "a source has delivered wrong bytes and is not asked for the object for a while"
	if l.all {
		message = "a source has delivered wrong bytes of several objects and is set aside"
	}
	f.opts.Log.With(slog.String("source", l.source), slog.String("object", l.object.String())).
		With(more...).Warn(message, slog.Duration("for", l.length), slog.Any("err", l.err))
}

// Lied notes that a source has delivered wrong bytes of an object to somebody else than Fetch: it counts, and is logged, as if they had come here.
func (f *Fetcher) Lied(s Source, o Object, err error) {
	as := named(s)
	f.mu.Lock()
	src := f.sourceLocked(as)
	src.lastErr = err
	l := f.liedLocked(f.objectLocked(o), src, err, time.Now())
	f.mu.Unlock()
	f.logLie(l)
}

// Trusted returns those of some sources that somebody else than Fetch should ask for an object, in the same order: not those that have delivered wrong bytes of
// it, and those that are set aside only if there are no others.
func (f *Fetcher) Trusted(o Object, sources []Source) []Source {
	names := make([]string, len(sources))
	for i, s := range sources {
		names[i] = s.String()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now, ob := time.Now(), f.objects[o]
	var good, aside []Source
	for i, name := range names {
		switch s := f.sources[name]; {
		case s == nil:
			good = append(good, sources[i])
		case ob != nil && now.Before(ob.absent[s].wrong.until):
		case now.Before(s.aside.until):
			aside = append(aside, sources[i])
		default:
			good = append(good, sources[i])
		}
	}
	if len(good) == 0 {
		return aside
	}
	return good
}
