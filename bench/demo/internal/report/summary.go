package report

import (
	"slices"

	"thaw/bench/lab"
)

// Summary is what the runs come to.
type Summary struct {
	Workload string       `json:"workload"`
	Snapshot lab.Snapshot `json:"snapshot"`
	// Medians holds the medians by cache state and mode.
	Medians map[lab.Cache]map[lab.Mode]Medians `json:"medians"`
	// Ratios compares Thaw's medians with the other modes'.
	Ratios map[lab.Cache]Ratios `json:"ratios"`
	// Targets are the figures to reach, with what was reached. Empty if the modes that they compare did not run.
	Targets []Target `json:"targets"`
}

// Medians are the medians of one mode in one cache state. Times are in seconds; nil where the mode has no such figure.
type Medians struct {
	Runs            int      `json:"runs"`
	ToRunning       float64  `json:"to_running_s"`
	ToFirstResponse *float64 `json:"to_first_response_s,omitempty"`
	WarmCall        *float64 `json:"warm_call_s,omitempty"`
	Overhead        *float64 `json:"overhead_s,omitempty"`
	BytesRead       float64  `json:"bytes_read"`
	FaultsServed    *float64 `json:"faults_served,omitempty"`
	ServerMemory    *float64 `json:"server_memory_bytes,omitempty"`
}

// Ratios compare medians. Nil where a mode did not run.
type Ratios struct {
	// ColdToThaw is how many times sooner the first response comes than with a cold start.
	ColdToThaw *float64 `json:"cold_first_response_over_thaw,omitempty"`
	// ThawToEager and ThawToLazy are Thaw's overhead as a part of CRIU's.
	ThawToEager *float64 `json:"thaw_overhead_over_criu_eager,omitempty"`
	ThawToLazy  *float64 `json:"thaw_overhead_over_criu_lazy,omitempty"`
}

// Target is a figure to reach.
type Target struct {
	Name  string    `json:"name"`
	Cache lab.Cache `json:"cache"`
	// Want is the bound: Reached must be at least that much if AtLeast is set, at most that much otherwise.
	Want    float64 `json:"want"`
	AtLeast bool    `json:"at_least"`
	Reached float64 `json:"reached"`
	Met     bool    `json:"met"`
}

// Goals are the figures that a workload is to reach. A zero goal is none.
type Goals struct {
	// ColdToThaw is by cache state: so many times sooner than a cold start.
	ColdToThaw map[lab.Cache]float64
	// ThawToEager and ThawToLazy bound the overhead, in both cache states.
	ThawToEager, ThawToLazy float64
}

// Summarize fills in the overheads of the runs and returns what the runs come to.
func Summarize(workload string, snapshot lab.Snapshot, runs []Run, goals Goals) Summary {
	s := Summary{
		Workload: workload,
		Snapshot: snapshot,
		Medians:  make(map[lab.Cache]map[lab.Mode]Medians),
		Ratios:   make(map[lab.Cache]Ratios),
		Targets:  []Target{},
	}
	for _, cache := range lab.Caches() {
		setOverheads(runs, cache)
		for _, mode := range lab.Modes() {
			some := slices.DeleteFunc(slices.Clone(runs), func(r Run) bool { return r.Cache != cache || r.Mode != mode })
			if len(some) == 0 {
				continue
			}
			if s.Medians[cache] == nil {
				s.Medians[cache] = make(map[lab.Mode]Medians)
			}
			s.Medians[cache][mode] = medians(some)
		}
		if m := s.Medians[cache]; m != nil {
			s.Ratios[cache] = ratios(m)
			s.Targets = append(s.Targets, targets(cache, s.Ratios[cache], goals)...)
		}
	}
	return s
}

// setOverheads sets the overhead of each run in the given cache state. Without a floor there is none.
func setOverheads(runs []Run, cache lab.Cache) {
	var floors []float64
	for _, r := range runs {
		if r.Mode == lab.Floor && r.Cache == cache {
			floors = append(floors, r.ToRunning)
		}
	}
	floor := Median(floors)
	for i := range runs {
		r := &runs[i]
		if r.Cache != cache || r.Mode == lab.Cold || floor == nil || r.ToFirstResponse == nil || r.WarmCall == nil {
			continue
		}
		overhead := *r.ToFirstResponse - *r.WarmCall - *floor
		r.Overhead = &overhead
	}
}

func medians(runs []Run) Medians {
	m := Medians{
		Runs:            len(runs),
		ToFirstResponse: medianOf(runs, func(r *Run) *float64 { return r.ToFirstResponse }),
		WarmCall:        medianOf(runs, func(r *Run) *float64 { return r.WarmCall }),
		Overhead:        medianOf(runs, func(r *Run) *float64 { return r.Overhead }),
		FaultsServed:    medianOf(runs, func(r *Run) *float64 { return toFloat(r.FaultsServed) }),
		ServerMemory:    medianOf(runs, func(r *Run) *float64 { return toFloat(r.ServerMemory) }),
	}
	m.ToRunning = *medianOf(runs, func(r *Run) *float64 { return &r.ToRunning })
	m.BytesRead = *medianOf(runs, func(r *Run) *float64 { return toFloat(&r.BytesRead) })
	return m
}

func toFloat(n *uint64) *float64 {
	if n == nil {
		return nil
	}
	f := float64(*n)
	return &f
}

// medianOf returns the median of a figure over the runs that have it, nil if none has.
func medianOf(runs []Run, figure func(*Run) *float64) *float64 {
	var values []float64
	for i := range runs {
		if v := figure(&runs[i]); v != nil {
			values = append(values, *v)
		}
	}
	return Median(values)
}

// Median returns the median of values, the mean of the middle two if their number is even, nil if there are none.
func Median(values []float64) *float64 {
	if len(values) == 0 {
		return nil
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := sorted[len(sorted)/2]
	if len(sorted)%2 == 0 {
		middle = (sorted[len(sorted)/2-1] + middle) / 2
	}
	return &middle
}

func ratios(m map[lab.Mode]Medians) Ratios {
	return Ratios{
		ColdToThaw:  quotient(m[lab.Cold].ToFirstResponse, m[lab.Thaw].ToFirstResponse),
		ThawToEager: quotient(m[lab.Thaw].Overhead, m[lab.CRIUEager].Overhead),
		ThawToLazy:  quotient(m[lab.Thaw].Overhead, m[lab.CRIULazy].Overhead),
	}
}

// quotient returns a/b, nil if either is missing or b is not positive: a part of nothing says nothing.
func quotient(a, b *float64) *float64 {
	if a == nil || b == nil || *b <= 0 {
		return nil
	}
	q := *a / *b
	return &q
}

func targets(cache lab.Cache, r Ratios, goals Goals) []Target {
	var all []Target
	add := func(name string, want float64, atLeast bool, reached *float64) {
		if want == 0 || reached == nil {
			return
		}
		met := *reached <= want
		if atLeast {
			met = *reached >= want
		}
		all = append(all, Target{Name: name, Cache: cache, Want: want, AtLeast: atLeast, Reached: *reached, Met: met})
	}
	add("first response, cold start over thaw", goals.ColdToThaw[cache], true, r.ColdToThaw)
	add("overhead, thaw over CRIU eager", goals.ThawToEager, false, r.ThawToEager)
	add("overhead, thaw over CRIU lazy", goals.ThawToLazy, false, r.ThawToLazy)
	return all
}
