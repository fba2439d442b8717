package tier

import (
	"context"
	"sync"

	"thaw/pagestore"
	"thaw/pagestore/internal/frame"
)

// idleObjects is how many objects are remembered that nobody fetches from: an index takes 80 KiB for a full pack.
const idleObjects = 256

// objects is what is known of framed objects: their nodes, and where their frames lie at which place.
type objects struct {
	mu   sync.Mutex
	all  map[string]*object // by name; protected by mu
	idle []*object          // those without users, the one that has been idle longest first; protected by mu
}

// object is one of them.
type object struct {
	name  string // as the fetcher knows it
	key   Key
	pages uint32
	root  pagestore.Digest
	users int // protected by objects.mu

	mu      sync.Mutex
	nodes   []byte                  // nil until they are known; protected by mu
	indexes map[string]*frame.Index // by place; protected by mu
}

// use returns the object, for release. nodes are nil if they are not known.
func (os *objects) use(name string, key Key, pages uint32, root pagestore.Digest, nodes []byte) *object {
	os.mu.Lock()
	defer os.mu.Unlock()
	ob := os.all[name]
	if ob == nil {
		ob = &object{name: name, key: key, pages: pages, root: root, indexes: make(map[string]*frame.Index)}
		if os.all == nil {
			os.all = make(map[string]*object)
		}
		os.all[name] = ob
	} else if ob.users == 0 {
		for i, o := range os.idle {
			if o == ob {
				os.idle = append(os.idle[:i], os.idle[i+1:]...)
				break
			}
		}
	}
	ob.users++
	if nodes != nil {
		ob.setNodes(nodes)
	}
	return ob
}

func (os *objects) release(ob *object) {
	os.mu.Lock()
	defer os.mu.Unlock()
	if ob.users--; ob.users > 0 || os.all[ob.name] != ob {
		return
	}
	os.idle = append(os.idle, ob)
	if len(os.idle) > idleObjects {
		delete(os.all, os.idle[0].name)
		os.idle = os.idle[1:]
	}
}

// find returns an object that somebody uses, or has used of late; nil if there is none.
func (os *objects) find(name string) *object {
	os.mu.Lock()
	defer os.mu.Unlock()
	return os.all[name]
}

func (ob *object) setNodes(nodes []byte) {
	ob.mu.Lock()
	defer ob.mu.Unlock()
	if ob.nodes == nil {
		ob.nodes = nodes
	}
}

func (ob *object) knownNodes() []byte {
	ob.mu.Lock()
	defer ob.mu.Unlock()
	return ob.nodes
}

// index returns where the frames lie at a place. known says that it did not have to be read.
func (ob *object) index(ctx context.Context, p Place) (x *frame.Index, known bool, err error) {
	ob.mu.Lock()
	x, nodes := ob.indexes[p.String()], ob.nodes
	ob.mu.Unlock()
	if x != nil {
		return x, true, nil
	}
	if p.Raw && nodes != nil {
		x, err = frame.Raw(frameKind(ob.key), ob.key.Digest, ob.pages, nodes)
	} else {
		x, err = readIndex(ctx, p, ob.key, ob.pages, ob.root)
	}
	if err != nil {
		return nil, false, err
	}
	ob.keep(p, x)
	return x, false, nil
}

// keep remembers where the frames lie at a place.
func (ob *object) keep(p Place, x *frame.Index) {
	ob.mu.Lock()
	defer ob.mu.Unlock()
	ob.indexes[p.String()] = x
	if ob.nodes == nil {
		ob.nodes = x.Nodes()
	}
}

// forget forgets where the frames lie at a place.
func (ob *object) forget(p Place) {
	ob.mu.Lock()
	defer ob.mu.Unlock()
	delete(ob.indexes, p.String())
}
