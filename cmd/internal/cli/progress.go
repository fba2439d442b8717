package cli

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/sys/unix"
)

// lineEvery is how often progress is told where it cannot be drawn over, as in a log file.
const lineEvery = 2 * time.Second

// Progress tells how far a long step is: as a bar on a terminal, as a line every two seconds elsewhere. It is safe for
// concurrent use. A nil *Progress tells nothing.
type Progress struct {
	w    io.Writer
	name string

	mu    sync.Mutex
	bar   *progressbar.ProgressBar // protected by mu; nil where w is no terminal, and before the first Set
	begun time.Time                // immutable
	told  time.Time                // protected by mu; when the last line was written
	now   func() time.Time         // immutable
}

// NewProgress returns the progress of the step called name, told on w. quiet returns nil.
func NewProgress(w io.Writer, name string, quiet bool) *Progress {
	if quiet {
		return nil
	}
	p := &Progress{w: w, name: name, now: time.Now}
	p.begun = p.now()
	p.told = p.begun
	return p
}

// Set says that done of total bytes are dealt with. total may grow; 0 means that it is not known yet.
func (p *Progress) Set(done, total uint64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if IsTerminal(p.w) {
		p.drawLocked(done, total)
		return
	}
	if now := p.now(); now.Sub(p.told) >= lineEvery {
		p.told = now
		fmt.Fprintln(p.w, p.line(done, total, now))
	}
}

func (p *Progress) drawLocked(done, total uint64) {
	if total == 0 {
		return
	}
	if p.bar == nil {
		p.bar = progressbar.NewOptions64(int64(total),
			progressbar.OptionSetWriter(p.w),
			progressbar.OptionSetDescription(p.name),
			progressbar.OptionShowBytes(true),
			progressbar.OptionUseIECUnits(true),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish(),
			progressbar.OptionFullWidth(),
		)
	}
	if p.bar.GetMax64() != int64(total) {
		p.bar.ChangeMax64(int64(total))
	}
	// The bar cannot be drawn only if its writer fails, and then there is nobody to tell.
	_ = p.bar.Set64(int64(done))
}

func (p *Progress) line(done, total uint64, now time.Time) string {
	rate := Bytes(uint64(float64(done) / max(now.Sub(p.begun).Seconds(), 1e-3)))
	if total == 0 {
		return fmt.Sprintf("%s: %s, %s/s", p.name, Bytes(done), rate)
	}
	return fmt.Sprintf("%s: %s of %s (%d %%), %s/s", p.name, Bytes(done), Bytes(total), done*100/total, rate)
}

// Done clears the bar. Whoever runs the step tells its result.
func (p *Progress) Done() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Bytes returns n in binary units with three digits or so: "812 B", "9.6 MiB".
func Bytes(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/unit, 0
	for v >= 999.5 && i < len(units)-1 {
		v /= unit
		i++
	}
	digits := 0
	if v < 99.5 {
		digits = 1
	}
	return fmt.Sprintf("%.*f %s", digits, v, units[i])
}

var units = [...]string{"KiB", "MiB", "GiB", "TiB", "PiB"}

// Seconds returns d in seconds, in the precision that makes sense for a step of that length: "38 ms", "1.24 s".
func Seconds(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%d us", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	default:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
}
