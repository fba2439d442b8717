package instance

import (
	"context"
	"sync"
	"time"

	"thaw/control"
)

// thawdPatience bounds how long thawd may take to answer what a restore does not depend on. It is on the same host.
const thawdPatience = 2 * time.Second

// marks tell thawd, if it records the restore for the working set, when the first call is made, and when it is answered: what the runner touches
// behind that, its end above all, is not what a restore waits for. nil: nothing is recorded.
type marks struct {
	thawd    *control.Client
	session  string
	ready    sync.Once
	answered sync.Once
}

func newMarks(thawd *control.Client, s *control.Session) *marks {
	if s.Recording == nil {
		return nil
	}
	return &marks{thawd: thawd, session: s.ID}
}

// call says that a call is made. The function that it returns says that it has been answered, and returns when thawd knows.
func (m *marks) call() (answered func()) {
	if m == nil {
		return func() {}
	}
	m.ready.Do(func() { m.tell(control.MarkReady) })
	return m.end
}

// end says that what follows is not to be learned.
func (m *marks) end() {
	if m != nil {
		m.answered.Do(func() { m.tell(control.MarkAnswered) })
	}
}

// tell tells thawd. What fails costs a recording that is worth less.
func (m *marks) tell(mark control.Mark) {
	ctx, cancel := context.WithTimeout(context.Background(), thawdPatience)
	defer cancel()
	_ = m.thawd.MarkSession(ctx, m.session, mark)
}
