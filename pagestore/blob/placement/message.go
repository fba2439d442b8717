package placement

import (
	"encoding/binary"
	"errors"
	"time"
)

// Hint is a node's word, of so long ago, that it has an object.
type Hint struct {
	Key  Key
	Node string // 1 to 128 bytes
	// Serial is higher in what that node said later: milliseconds since 1970 by its clock. It is compared with others of the same node only.
	Serial uint64
	Age    time.Duration
}

// version begins a message of hints; after it they follow one another. Part of the protocol, docs/protocol/peer.md: do not change.
const version = 1

// hintSize is a hint's size without the node's name: key, serial, age in seconds, length of the name.
const hintSize = len(Key{}) + 8 + 4 + 1

var errMessage = errors.New("a message of hints is malformed")

// appendHint appends a hint to a message, which it begins if it is empty. It returns false if the message would have more than limit bytes.
func appendHint(b []byte, h Hint, limit int) ([]byte, bool) {
	if max(len(b), 1)+hintSize+len(h.Node) > limit {
		return b, false
	}
	if len(b) == 0 {
		b = append(b, version)
	}
	b = append(b, h.Key[:]...)
	b = binary.BigEndian.AppendUint64(b, h.Serial)
	b = binary.BigEndian.AppendUint32(b, uint32((h.Age+time.Second-1)/time.Second)) // up: a hint that goes round does not get younger
	b = append(b, byte(len(h.Node)))
	return append(b, h.Node...), true
}

// parseHints calls f with each hint of a message. Those before what is malformed count.
func parseHints(b []byte, f func(Hint)) error {
	if len(b) == 0 || b[0] != version {
		return errMessage
	}
	for b = b[1:]; len(b) > 0; {
		if len(b) < hintSize {
			return errMessage
		}
		h := Hint{Key: Key(b[:16]), Serial: binary.BigEndian.Uint64(b[16:]), Age: time.Duration(binary.BigEndian.Uint32(b[24:])) * time.Second}
		n := int(b[hintSize-1])
		b = b[hintSize:]
		if n == 0 || n > maxName || n > len(b) {
			return errMessage
		}
		h.Node, b = string(b[:n]), b[n:]
		f(h)
	}
	return nil
}
