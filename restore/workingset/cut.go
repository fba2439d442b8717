package workingset

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
)

// A Class says how much a page is wanted.
type Class uint8

// The classes, the most wanted one first.
const (
	ClassMust   Class = iota // most restores wait for it
	ClassLikely              // it pays to bring it before it is asked for
	ClassTail                // it does not: it comes with a fault, or when all else is there
	lastClass   = ClassTail
)

var classNames = [...]string{"must", "likely", "tail"}

func (c Class) String() string {
	if c <= lastClass {
		return classNames[c]
	}
	return fmt.Sprintf("class %d", uint8(c))
}

// MarshalText makes JSON say the name.
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// A Policy says where the classes end. Shares are from 0 to 1; 0 stands for the default.
type Policy struct {
	// Must is the share of recordings that touched a page before the first answer from which the page is a must. Default 1/2.
	Must float64
	// Likely is the same share from which it may be likely. Default 1/8.
	Likely float64
	// Later is the share of recordings that touched it at any time from which it may be likely, too. Default 1/2.
	Later float64
	// Unused is which part of the pages that are brought may be in vain, by what their histories say: of the pages that may
	// be likely, those with the greatest share are taken as long as that holds. Musts are brought whatever it says. With
	// short histories it leaves no room for others. Default 0.2.
	Unused float64
	// Near is how many pages that nobody was seen to touch may be brought because they lie in short gaps between those that are, as a part of
	// the latter: another input often needs what lies beside what this one needs. They count as in vain, and there are none where histories
	// say that Unused of the pages are already. Default 0.15; negative: none.
	Near float64
	// Gone is how many recordings in a row, the last ones of those in which a page was observable, have to miss it for it to be
	// no longer wanted, whatever its share: the program has become another one. Default 8; with a share of 1/2 chance does that
	// once in 256 times.
	Gone int
	// Few is how many recordings are too few for shares: with fewer, all pages that were touched before the first answer are
	// musts. Default 3.
	Few int
}

// defaults: TestLearnedSetMeetsItsFigures chose them.
var defaults = Policy{Must: 1.0 / 2, Likely: 1.0 / 8, Later: 1.0 / 2, Unused: 0.2, Near: 0.15, Gone: 8, Few: 3}

func (p *Policy) setDefaults() Policy {
	out := defaults
	if p == nil {
		return out
	}
	return Policy{
		Must: cmp.Or(p.Must, out.Must), Likely: cmp.Or(p.Likely, out.Likely), Later: cmp.Or(p.Later, out.Later),
		Unused: cmp.Or(p.Unused, out.Unused), Near: cmp.Or(p.Near, out.Near), Gone: cmp.Or(p.Gone, out.Gone), Few: cmp.Or(p.Few, out.Few),
	}
}

// classes returns the class of each entry of an object. Its policy has no defaults left to fill in.
func (p *Policy) classes(entries []Entry, learned int) []Class {
	out := make([]Class, len(entries))
	var candidates []int
	var brought, unused float64
	for i := range entries {
		e := &entries[i]
		early, known := float64(e.early()), float64(e.Known)
		switch {
		case bits.TrailingZeros32(e.Seen()) >= p.Gone:
			out[i] = ClassTail
		case early >= p.Must*known, learned < p.Few && early > 0:
			brought, unused = brought+1, unused+e.vain()
		case early >= p.Likely*known, e.share() >= p.Later:
			out[i] = ClassLikely
			candidates = append(candidates, i)
		default:
			out[i] = ClassTail
		}
	}
	slices.SortFunc(candidates, func(i, j int) int {
		a, b := &entries[i], &entries[j]
		return cmp.Or(cmp.Compare(b.share(), a.share()), cmp.Compare(b.early(), a.early()), cmp.Compare(a.order(), b.order()), cmp.Compare(a.Page, b.Page))
	})
	for n, i := range candidates {
		brought, unused = brought+1, unused+entries[i].vain()
		if unused > p.Unused*brought {
			for _, i := range candidates[n:] {
				out[i] = ClassTail
			}
			break
		}
	}
	return out
}

// vain returns how probable it is that the page is brought and not touched, as if one more recording had missed it: among many pages
// that are touched now and then, those with the greatest share are also those that had luck, and the more so the shorter their
// history.
func (e *Entry) vain() float64 {
	seen, known := e.Support()
	return 1 - float64(seen)/float64(known+1)
}

// order is where the page is among those that are brought: by when it is wanted, then those that are written first, which cost
// the processes more.
func (e *Entry) order() int {
	if e.Write {
		return 2 * int(e.Bucket)
	}
	return 2*int(e.Bucket) + 1
}

const orders = 2 * (int(LastBucket) + 1)

// A Plan says what to bring before it is asked for.
type Plan struct {
	Digest     [32]byte // of the snapshot's manifest
	ImagePages uint64

	Must, Likely Part       // of the image
	Near         []Run      // of the image, ascending: what lies between those and is not among the musts; it comes last
	Files        []FilePart // ascending by path
}

// A Part is pages of the image, in two orders. A run is of pages that were all written or all only read. The musts have pages among them
// that nobody was seen to touch: the shortest gaps between them (Policy.Near).
type Part struct {
	// Replay is by when the pages are wanted, those of a bucket that are written first; but stretches of 16 MiB are by their number, as
	// long runs take less time to bring than a process could tell one order from another by.
	Replay []Run
	// Ascending has the same pages by their number.
	Ascending []Run
}

// FilePart is pages of a file that are a must or likely, ascending.
type FilePart struct {
	Path string
	Runs []Run
}

// Cut makes a plan of a set. nil stands for the default policy. The plan keeps nothing of the set.
func Cut(s *Set, policy *Policy) *Plan {
	p := policy.setDefaults()
	plan := &Plan{Digest: s.Digest, ImagePages: s.ImagePages}
	classes := p.classes(s.Image(), s.Learned())
	near := p.near(s.Image(), classes)
	plan.Must, near = part(s.Image(), classes, ClassMust, near)
	plan.Likely, _ = part(s.Image(), classes, ClassLikely, nil)
	plan.Near = near
	for i := range s.Objects[1:] {
		o := &s.Objects[1+i]
		var runs []Run
		for j, c := range p.classes(o.Entries, s.Learned()) {
			if c != ClassTail {
				runs = appendPage(runs, o.Entries[j].Page, o.Entries[j].Write)
			}
		}
		if len(runs) > 0 {
			plan.Files = append(plan.Files, FilePart{o.Path, runs})
		}
	}
	return plan
}

// part returns the pages of a class, with those of the gaps, which ascend, that lie between two of them. It returns the other gaps, too.
func part(entries []Entry, classes []Class, class Class, gaps []Run) (p Part, others []Run) {
	replay := make([][]Run, orders)
	add := func(order int, r Run) {
		p.Ascending = appendRun(p.Ascending, r)
		replay[order] = appendRun(replay[order], r)
	}
	var last *Entry // of the class
	for i := range entries {
		e := &entries[i]
		if classes[i] == ClassTail {
			continue
		}
		for len(gaps) > 0 && gaps[0].Page < e.Page {
			if last != nil && last.Page+1 == gaps[0].Page && gaps[0].end() == e.Page && classes[i] == class {
				add(last.order(), gaps[0])
			} else {
				others = append(others, gaps[0])
			}
			gaps = gaps[1:]
		}
		if last = nil; classes[i] == class {
			last = e
			add(e.order(), Run{Page: e.Page, Pages: 1, Write: e.Write})
		}
	}
	for len(replay) > 0 {
		n := stretch(replay)
		together := slices.Concat(replay[:n]...)
		slices.SortFunc(together, func(a, b Run) int { return cmp.Compare(a.Page, b.Page) })
		for _, r := range together {
			p.Replay = appendRun(p.Replay, r)
		}
		replay = replay[n:]
	}
	return p, others
}

// stretchPages is how many pages may be brought by their number, and not by when they are wanted: 16 MiB, which take 6 ms to copy.
const stretchPages = 4096

// stretch returns how many of the orders are taken together, which is at least the first.
func stretch(orders [][]Run) int {
	n, pages := 1, Pages(orders[0])
	for n < len(orders) && pages+Pages(orders[n]) <= stretchPages {
		pages += Pages(orders[n])
		n++
	}
	return n
}

// nearGap is the longest gap that is filled: what a fault brings along is as long.
const nearGap = 16

// near returns the gaps between pages that are brought which are filled, the shortest ones first as long as there is room.
func (p *Policy) near(entries []Entry, classes []Class) []Run {
	var gaps []Run
	var brought, unused float64
	var end uint64 // behind the page that is brought before
	for i := range entries {
		if classes[i] == ClassTail {
			continue
		}
		page := entries[i].Page
		if n := page - end; brought > 0 && n > 0 && n <= nearGap {
			gaps = append(gaps, Run{Page: end, Pages: n})
		}
		end = page + 1
		brought, unused = brought+1, unused+1-entries[i].share()
	}
	room := min(p.Near*brought, (p.Unused*brought-unused)/(1-p.Unused))
	slices.SortStableFunc(gaps, func(a, b Run) int { return cmp.Compare(a.Pages, b.Pages) })
	n := 0
	for n < len(gaps) && float64(gaps[n].Pages) <= room {
		room -= float64(gaps[n].Pages)
		n++
	}
	if n == 0 {
		return nil
	}
	return normal(gaps[:n])
}

// Order returns the pages of the image that the plan brings, in the order in which it does: musts first. A pack that has
// them in this order is read from its beginning to its end.
func (p *Plan) Order() []uint64 {
	var all []uint64
	for _, r := range slices.Concat(p.Must.Replay, p.Likely.Replay, p.Near) {
		for page := r.Page; page < r.end(); page++ {
			all = append(all, page)
		}
	}
	return all
}

// Pages returns how many pages of the image the plan brings.
func (p *Plan) Pages() uint64 {
	return Pages(p.Must.Ascending) + Pages(p.Likely.Ascending) + Pages(p.Near)
}
