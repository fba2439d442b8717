package guard

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMessagesAreReadAsTheyWereWritten(t *testing.T) {
	for _, m := range []message{
		{kind: kindHello},
		{kind: kindHold, fds: 1, number: 1},
		{kind: kindHold, fds: 2, number: 1<<64 - 1, text: "process 12 of session a"},
		{kind: kindAnswer, number: 3},
		{kind: kindAnswer, number: 3, text: "no room"},
		{kind: kindRelease, number: 3},
	} {
		got, err := parseMessage(m.append(nil))
		if err != nil {
			t.Errorf("%+v: %v", m, err)
		}
		if diff := cmp.Diff(m, got, cmp.AllowUnexported(message{})); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestATextThatIsTooLongIsCutOff(t *testing.T) {
	m, err := parseMessage(message{kind: kindHold, fds: 1, number: 1, text: strings.Repeat("x", 1000)}.append(nil))
	if err != nil || len(m.text) != maxText {
		t.Errorf("text of %d bytes, error %v", len(m.text), err)
	}
}

func TestMalformedMessages(t *testing.T) {
	good := message{kind: kindHold, fds: 1, number: 1}.append(nil)
	change := func(at int, to byte) []byte {
		b := bytes.Clone(good)
		b[at] = to
		return b
	}
	for _, tt := range []struct {
		name string
		data []byte
	}{
		{"nothing", nil},
		{"a header that is cut off", good[:headerSize-1]},
		{"one byte too many", append(bytes.Clone(good), make([]byte, maxText+1)...)},
		{"another version", change(0, version+1)},
		{"a kind of none", change(1, 0)},
		{"a kind of tomorrow", change(1, byte(kindRelease)+1)},
		{"a hold without descriptors", change(2, 0)},
		{"a hold with three descriptors", change(2, 3)},
		{"a byte that is reserved", change(3, 1)},
		{"a hold without a number", change(4, 0)},
		{"a release with a text", message{kind: kindRelease, number: 1, text: "x"}.append(nil)},
		{"a release with a descriptor", message{kind: kindRelease, number: 1, fds: 1}.append(nil)},
		{"a greeting with a number", message{kind: kindHello, number: 1}.append(nil)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if m, err := parseMessage(tt.data); !errors.Is(err, errMalformed) {
				t.Errorf("got %+v, error %v", m, err)
			}
		})
	}
}

// FuzzParseMessage: there is an error, or a message that is written as it was read.
func FuzzParseMessage(f *testing.F) {
	f.Add(message{kind: kindHello}.append(nil))
	f.Add(message{kind: kindHold, fds: 2, number: 1, text: "process"}.append(nil))
	f.Add(message{kind: kindAnswer, number: 1, text: "no room"}.append(nil))
	f.Add(message{kind: kindRelease, number: 1}.append(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseMessage(data)
		if err != nil {
			if !errors.Is(err, errMalformed) {
				t.Errorf("error %v is of the wrong kind", err)
			}
			return
		}
		if !m.valid() {
			t.Errorf("%+v should not be taken", m)
		}
		if got := m.append(nil); !bytes.Equal(got, data) {
			t.Errorf("%x is written as %x", data, got)
		}
	})
}
