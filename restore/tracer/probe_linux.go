package tracer

// Probe says which point can be used here by this process, and why better ones cannot. It attaches for a moment, and sees
// nothing. Its errors are those of NewRecorder.
func Probe() (Info, error) {
	if err := checkNamespace(); err != nil {
		return Info{}, err
	}
	p, err := load(settings{ringBytes: ringSize(0), maxPages: 1})
	if err != nil {
		return Info{}, err
	}
	return Info{Point: p.point, Refused: p.refused}, p.close()
}
