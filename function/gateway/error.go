package gateway

import (
	"context"
	"errors"
	"net/http"

	"thaw/function"
	"thaw/function/instance"
	"thaw/function/runner"
)

// A Code says what kind of failure an Error is.
type Code string

// The codes. Whose failure it is: the caller's, the author's, or the server's.
const (
	CodeRequest     Code = "invalid_request" // caller: the body or the query cannot be read
	CodeNotDeployed Code = "not_deployed"    // caller: no such app, object, method or endpoint
	CodeArgument    Code = "argument"        // caller: the method does not take these arguments, or the object these parameters
	CodeException   Code = "exception"       // author: the method has raised
	CodeResult      Code = "result"          // author: what the method returned cannot be sent
	CodeStart       Code = "start"           // author, mostly: no instance could be started
	CodeEnded       Code = "instance_ended"  // the instance has ended in the call; it may have done a part of it
	CodeSnapshot    Code = "snapshot"        // no snapshot could be taken
	CodeClosing     Code = "closing"         // server: it is about to end
	CodeInternal    Code = "internal"        // server: see the message
)

var statuses = map[Code]int{
	CodeRequest: http.StatusBadRequest, CodeNotDeployed: http.StatusNotFound, CodeArgument: http.StatusUnprocessableEntity,
	CodeException: http.StatusInternalServerError, CodeResult: http.StatusInternalServerError, CodeStart: http.StatusBadGateway,
	CodeEnded: http.StatusBadGateway, CodeSnapshot: http.StatusConflict, CodeClosing: http.StatusServiceUnavailable,
	CodeInternal: http.StatusInternalServerError,
}

// Error is a failed request.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	// Type and Traceback are those of the author's exception, if there was one: the frames of the author's own code.
	Type      string `json:"type,omitempty"`
	Traceback string `json:"traceback,omitempty"`
	// Stage is what an instance was doing that could not be started, such as "import" or "enter_snap".
	Stage string `json:"stage,omitempty"`
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// ErrorBody is the body of an answer that is not a success.
type ErrorBody struct {
	Error Error `json:"error"`
}

// errorOf says what a caller is told of a failure.
func errorOf(err error) *Error {
	var told *Error
	var call *runner.CallError
	var failed *runner.FailedError
	var boot *function.BootError
	var ended *runner.EndedError
	var problems *function.ProblemsError
	e := &Error{Code: CodeInternal, Message: err.Error()}
	switch {
	case errors.As(err, &told):
		return told
	case errors.As(err, &call):
		return &Error{Code: codeOfCall(call.Kind), Message: call.Error(), Type: call.Type, Traceback: call.Traceback}
	case errors.As(err, &failed):
		e.Code, e.Type, e.Traceback, e.Stage = CodeStart, failed.Type, failed.Traceback, failed.Stage
	case errors.As(err, &boot):
		e.Code = CodeStart
	case errors.Is(err, function.ErrNotDeployed):
		e.Code = CodeNotDeployed
	case errors.Is(err, function.ErrParameters):
		e.Code = CodeArgument
	case errors.Is(err, function.ErrNoSnapshots), errors.Is(err, function.ErrFreezing), errors.As(err, &problems):
		e.Code = CodeSnapshot
	case errors.Is(err, function.ErrClosing):
		e.Code = CodeClosing
	case errors.As(err, &ended), errors.Is(err, runner.ErrClosed), errors.Is(err, instance.ErrOutOfMemory):
		e.Code = CodeEnded
	}
	return e
}

// statusClientGone is what is logged of a request whose sender has gone; nobody gets it.
const statusClientGone = 499

func statusOf(err error, e *Error) int {
	if errors.Is(err, context.Canceled) {
		return statusClientGone
	}
	return statuses[e.Code]
}

func codeOfCall(kind string) Code {
	switch kind {
	case "argument":
		return CodeArgument
	case "method":
		return CodeNotDeployed
	case "result":
		return CodeResult
	default:
		return CodeException
	}
}
