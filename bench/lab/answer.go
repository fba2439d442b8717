package lab

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// answer is what a workload answers to a request.
type answer struct {
	SHA256 string // of what was asked for, by which reports name it; 64 hexadecimal digits
	text   []byte // all of it, as it came
}

// parseAnswer reads the line that a workload answers with on its standard output. It has the digest of what was asked for.
func parseAnswer(line []byte) (*answer, error) {
	var message struct {
		SHA256 string `json:"sha256"`
		Error  string `json:"error"`
	}
	if err := json.Unmarshal(line, &message); err != nil {
		return nil, fmt.Errorf("container wrote %.200q: %w", line, err)
	}
	if message.Error != "" {
		return nil, fmt.Errorf("container answered with an error: %s", message.Error)
	}
	if sum, err := hex.DecodeString(message.SHA256); err != nil || len(sum) != sha256.Size {
		return nil, fmt.Errorf("container wrote %.200q, which is no answer", line)
	}
	return &answer{SHA256: message.SHA256, text: line}, nil
}

// newAnswer takes what a service sent for an answer. It keeps text.
func newAnswer(text []byte) *answer {
	sum := sha256.Sum256(text)
	return &answer{SHA256: hex.EncodeToString(sum[:]), text: text}
}

// compare returns an error unless both answers are the same to the last bit.
func (a *answer) compare(want *answer) error {
	if bytes.Equal(a.text, want.text) {
		return nil
	}
	at := 0
	for at < len(a.text) && at < len(want.text) && a.text[at] == want.text[at] {
		at++
	}
	return fmt.Errorf("the answer differs from the first one to this input at byte %d of %d: got %.40q, want %.40q",
		at, len(want.text), a.text[at:], want.text[at:])
}
