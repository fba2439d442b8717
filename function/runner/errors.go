package runner

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

var (
	// ErrProtocol marks what a runner must not say: a line that is no event, an answer to nothing.
	ErrProtocol = errors.New("the runner broke the protocol")
	// ErrTooLong is returned for a command, and marks an event, that is longer than [MaxLine]. The command was not sent, and the conversation
	// goes on.
	ErrTooLong = fmt.Errorf("line is longer than %d MiB", MaxLine>>20)
	// ErrBusy is returned for a command while another one of those that are made one at a time has no answer yet.
	ErrBusy = errors.New("the runner has another command to answer first")
	// ErrClosed is returned for commands after Close.
	ErrClosed = os.ErrClosed
)

// Stages of a [FailedError] that follow a restore. A runner that fails in one of them may do well if it is started cold.
const (
	StageRefresh      = "refresh"
	StageAfterRestore = "after_restore"
	StageEnter        = "enter"
)

// FailedError says that a runner has failed outside of calls, in its own words. The runner ends by itself.
type FailedError struct {
	// Stage is what it was doing: import, load, construct, enter_snap, warmup, before_snapshot, refresh, after_restore, enter or exit.
	Stage string
	// Type and Message are the exception's. Traceback has the author's frames only; several lines, empty if there are none.
	Type, Message, Traceback string
}

// Error returns the failure in one line, without the traceback.
func (e *FailedError) Error() string {
	return fmt.Sprintf("%s failed: %s", e.Stage, exception(e.Type, e.Message))
}

// CallError says that a call has failed. The runner goes on.
type CallError struct {
	// Kind says whose failure it is: "exception" of the author's code, "argument" or "method" of the caller's, "result" if what the method
	// returned cannot be sent.
	Kind string
	// Type, Message and Traceback are as in [FailedError].
	Type, Message, Traceback string
}

// Error returns the failure in one line, without the traceback.
func (e *CallError) Error() string { return exception(e.Type, e.Message) }

func exception(kind, message string) string {
	if message == "" {
		return kind
	}
	return kind + ": " + message
}

// EndedError says that a runner has ended, or cannot be heard any more, without a word about it.
type EndedError struct {
	// Log are the last lines of its log.
	Log []string
	// Err is why it cannot be heard, nil if its output simply ended.
	Err error
}

// Error returns all in one line.
func (e *EndedError) Error() string {
	text := "the process has ended"
	if e.Err != nil {
		text += fmt.Sprintf(" (%v)", e.Err)
	}
	if len(e.Log) == 0 {
		return text + ", and its log is empty"
	}
	return text + ", the end of its log: " + strings.Join(e.Log, "; ")
}

// Unwrap returns Err.
func (e *EndedError) Unwrap() error { return e.Err }
