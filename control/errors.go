package control

import (
	"net/http"
	"strings"
)

// Code names the kind of a failure. Codes are part of the API: they do not change meaning, new ones may come.
//
// A Code is itself an error, so that errors.Is(err, control.CodeNotFound) works on whatever [Client] returns.
type Code string

const (
	// CodeInvalid says that the request cannot be understood: not JSON, an unknown field, a value out of its range.
	CodeInvalid Code = "invalid_request"
	// CodeNotFound says that there is no such session, folder or route.
	CodeNotFound Code = "not_found"
	// CodeMethod says that the route exists, and not with this method.
	CodeMethod Code = "method_not_allowed"
	// CodeTooLarge says that the request's body is larger than [MaxRequestBytes].
	CodeTooLarge Code = "too_large"
	// CodeSnapshotNotFound says that the store has no such snapshot.
	CodeSnapshotNotFound Code = "snapshot_not_found"
	// CodeBeingRemoved says that the snapshot is being removed at this moment.
	CodeBeingRemoved Code = "snapshot_being_removed"
	// CodeCorrupt says that the snapshot or the images are damaged or of a kind that thawd does not know.
	CodeCorrupt Code = "corrupt"
	// CodeInUse says that another session or daemon holds the work folder.
	CodeInUse Code = "in_use"
	// CodeWouldLoseMemory says that processes still wait for pages that only this session can give them.
	CodeWouldLoseMemory Code = "would_lose_memory"
	// CodeNotRecorded says that what the session's processes touch is not recorded, or not any more.
	CodeNotRecorded Code = "not_recorded"
	// CodeDraining says that thawd takes no new sessions because it is about to end.
	CodeDraining Code = "draining"
	// CodeTooMany says that thawd holds as many sessions as it was told to hold at most.
	CodeTooMany Code = "too_many_sessions"
	// CodePermission says that thawd lacks a permission on a file or folder that the request needs.
	CodePermission Code = "permission_denied"
	// CodeNoSpace says that the file system of the work folder is full.
	CodeNoSpace Code = "no_space"
	// CodeNoTiers says that this thawd knows no place beyond its store.
	CodeNoTiers Code = "no_tiers"
	// CodeElsewhere says that a snapshot, or pages of it, are elsewhere and could not be had from there.
	CodeElsewhere Code = "cannot_be_had"
	// CodeInternal is every other failure; thawd's log has more.
	CodeInternal Code = "internal"
	// CodeUnavailable is made by [Client] alone: nobody listens on the socket.
	CodeUnavailable Code = "unavailable"
)

// Codes lists all codes that the server sends.
func Codes() []Code {
	return []Code{
		CodeInvalid, CodeNotFound, CodeMethod, CodeTooLarge, CodeSnapshotNotFound, CodeBeingRemoved, CodeCorrupt,
		CodeInUse, CodeWouldLoseMemory, CodeNotRecorded, CodeDraining, CodeTooMany, CodePermission, CodeNoSpace, CodeNoTiers, CodeElsewhere,
		CodeInternal,
	}
}

// Error returns the code in words.
func (c Code) Error() string { return strings.ReplaceAll(string(c), "_", " ") }

// Status returns the HTTP status that carries the code.
func (c Code) Status() int {
	switch c {
	case CodeInvalid:
		return http.StatusBadRequest
	case CodeNotFound, CodeSnapshotNotFound, CodeNoTiers:
		return http.StatusNotFound
	case CodeMethod:
		return http.StatusMethodNotAllowed
	case CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case CodeBeingRemoved, CodeInUse, CodeWouldLoseMemory, CodeNotRecorded:
		return http.StatusConflict
	case CodeCorrupt:
		return http.StatusUnprocessableEntity
	case CodeElsewhere:
		return http.StatusBadGateway
	case CodeDraining:
		return http.StatusServiceUnavailable
	case CodeTooMany:
		return http.StatusTooManyRequests
	case CodePermission:
		return http.StatusForbidden
	case CodeNoSpace:
		return http.StatusInsufficientStorage
	default:
		return http.StatusInternalServerError
	}
}

// Error is a failure as the API tells it.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`        // what happened, and where
	Hint    string `json:"hint,omitempty"` // what to do about it
}

// Error returns the message; the hint is for whoever prints it.
func (e *Error) Error() string {
	if e.Message == "" {
		return e.Code.Error()
	}
	return e.Message
}

// Unwrap returns the code.
func (e *Error) Unwrap() error { return e.Code }

// ErrorBody is the body of every answer whose status is 400 or above.
type ErrorBody struct {
	Error Error `json:"error"`
}
