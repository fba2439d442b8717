package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// version changes with the protocol: the guard may be another build than its server.
const version = 1

// A message is the header (version, kind, number of descriptors, 0, the number in little endian), then text.
const (
	headerSize = 12
	maxText    = 256
	maxMessage = headerSize + maxText
)

type kind uint8

const (
	kindHello   kind = iota + 1
	kindHold         // number, text: what the process is called in logs; with 1 or 2 descriptors
	kindAnswer       // number of the hold, text: why it was refused, empty if it was not
	kindRelease      // number
)

// A message is one packet. Its number names a held process; the server counts, from 1.
type message struct {
	kind   kind
	fds    uint8 // descriptors that come with it
	number uint64
	text   string
}

// errMalformed is what parseMessage returns, wrapped, and what becomes of messages that make no sense.
var errMalformed = errors.New("malformed message")

// append appends the encoded message. A text that is too long is cut off.
func (m message) append(b []byte) []byte {
	b = append(b, version, byte(m.kind), m.fds, 0)
	b = binary.LittleEndian.AppendUint64(b, m.number)
	return append(b, m.text[:min(len(m.text), maxText)]...)
}

// parseMessage decodes one packet.
func parseMessage(b []byte) (message, error) {
	if len(b) < headerSize || len(b) > maxMessage {
		return message{}, fmt.Errorf("%w: %d bytes", errMalformed, len(b))
	}
	m := message{kind: kind(b[1]), fds: b[2], number: binary.LittleEndian.Uint64(b[4:]), text: string(b[headerSize:])}
	if b[0] != version || b[3] != 0 || !m.valid() {
		return message{}, fmt.Errorf("%w: header %x, text of %d bytes", errMalformed, b[:headerSize], len(m.text))
	}
	return m, nil
}

// valid reports whether the fields of m suit its kind.
func (m message) valid() bool {
	switch m.kind {
	case kindHello:
		return m.fds == 0 && m.number == 0 && m.text == ""
	case kindHold:
		return (m.fds == 1 || m.fds == 2) && m.number != 0
	case kindAnswer:
		return m.fds == 0 && m.number != 0
	case kindRelease:
		return m.fds == 0 && m.number != 0 && m.text == ""
	}
	return false
}
