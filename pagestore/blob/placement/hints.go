package placement

import (
	"container/list"
	"slices"
	"sync"
	"time"
)

// HintOptions bound what Hints remember. The zero value is useful.
type HintOptions struct {
	// Objects is of how many objects there are hints; those longest not heard of are forgotten. 0: 16,384.
	Objects int

	// Nodes is how many nodes are remembered for an object, those heard of last. 0: 8.
	Nodes int

	// Age is how old a hint may be. 0: an hour.
	Age time.Duration
}

func (o *HintOptions) setDefaults() {
	if o.Objects <= 0 {
		o.Objects = 16 << 10
	}
	if o.Nodes <= 0 {
		o.Nodes = 8
	}
	if o.Age <= 0 {
		o.Age = time.Hour
	}
}

// Hints are what nodes said lately of what they have. They are no more than that. Safe for concurrent use.
type Hints struct {
	opts HintOptions

	mu      sync.Mutex
	objects map[Key]*list.Element // of order
	order   list.List             // of *hinted; the one heard of last is in front
}

// hinted are the hints of one object.
type hinted struct {
	key   Key
	nodes []said // at most opts.Nodes, the one heard of last in front
}

type said struct {
	node   string
	serial uint64 // of what it said; a later one is higher
	when   time.Time
}

// NewHints returns no hints yet.
func NewHints(opts HintOptions) *Hints {
	opts.setDefaults()
	return &Hints{opts: opts, objects: make(map[Key]*list.Element)}
}

// Note remembers a hint. It returns false if it changed nothing: the hint is too old, or that node has said as much before, or others said it later.
func (h *Hints) Note(hint Hint) bool {
	age := max(hint.Age, 0)
	if age >= h.opts.Age {
		return false
	}
	s := said{hint.Node, hint.Serial, time.Now().Add(-age)}
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.objects[hint.Key]
	if e == nil {
		e = h.placeLocked(hint.Key, s.when)
		if e == nil {
			return false
		}
	}
	o := e.Value.(*hinted)
	if !o.note(s, h.opts.Nodes) {
		return false
	}
	if front := h.order.Front().Value.(*hinted); front == o || !s.when.Before(front.nodes[0].when) {
		h.order.MoveToFront(e)
	}
	return true
}

// placeLocked makes room for one more object, of which somebody heard then. What was heard of later is displaced by nothing.
func (h *Hints) placeLocked(key Key, when time.Time) *list.Element {
	if len(h.objects) >= h.opts.Objects {
		back := h.order.Back()
		if back.Value.(*hinted).nodes[0].when.After(when) {
			return nil
		}
		h.removeLocked(back)
	}
	h.objects[key] = h.order.PushBack(&hinted{key: key})
	return h.objects[key]
}

func (o *hinted) note(s said, most int) bool {
	if i := slices.IndexFunc(o.nodes, func(old said) bool { return old.node == s.node }); i >= 0 {
		if s.serial <= o.nodes[i].serial {
			return false
		}
		o.nodes = slices.Delete(o.nodes, i, i+1)
	}
	at, _ := slices.BinarySearchFunc(o.nodes, s, func(a, b said) int { return b.when.Compare(a.when) })
	if at == most {
		return false
	}
	o.nodes = slices.Insert(o.nodes, at, s)
	o.nodes = o.nodes[:min(len(o.nodes), most)]
	return true
}

// Holders returns the nodes that said lately that they have an object, the last one first.
func (h *Hints) Holders(key Key) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.objects[key]
	if e == nil {
		return nil
	}
	o := e.Value.(*hinted)
	oldest := time.Now().Add(-h.opts.Age)
	o.nodes = slices.DeleteFunc(o.nodes, func(s said) bool { return !s.when.After(oldest) })
	if len(o.nodes) == 0 {
		h.removeLocked(e)
		return nil
	}
	nodes := make([]string, len(o.nodes))
	for i, s := range o.nodes {
		nodes[i] = s.node
	}
	return nodes
}

// Wrong forgets that a node has an object: it was asked, and has it not.
func (h *Hints) Wrong(key Key, node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e := h.objects[key]; e != nil {
		h.dropLocked(e, node)
	}
}

// Forget forgets all that a node said.
func (h *Hints) Forget(node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.objects {
		h.dropLocked(e, node)
	}
}

func (h *Hints) dropLocked(e *list.Element, node string) {
	o := e.Value.(*hinted)
	o.nodes = slices.DeleteFunc(o.nodes, func(s said) bool { return s.node == node })
	if len(o.nodes) == 0 {
		h.removeLocked(e)
	}
}

func (h *Hints) removeLocked(e *list.Element) {
	delete(h.objects, e.Value.(*hinted).key)
	h.order.Remove(e)
}

// each calls f with all hints, those of objects heard of last first, until it returns false.
func (h *Hints) each(f func(Hint) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	for e := h.order.Front(); e != nil; e = e.Next() {
		o := e.Value.(*hinted)
		for _, s := range o.nodes {
			if age := now.Sub(s.when); age < h.opts.Age && !f(Hint{o.key, s.node, s.serial, age}) {
				return
			}
		}
	}
}
