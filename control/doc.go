// Package control is thawd's control API: HTTP with JSON bodies on a unix socket.
//
// A runtime that wants to thaw a snapshot first asks thawd for a session. The answer names the folder of skeleton
// images and the work folder to restore with; the socket that CRIU connects to already listens in that work folder.
//
//	POST   /v1/sessions         make a session                      -> Session
//	GET    /v1/sessions         sessions, live ones and recent ones -> SessionList
//	GET    /v1/sessions/{id}    one session                         -> Session
//	DELETE /v1/sessions/{id}    cancel or forget a session
//	POST   /v1/drain            take no new sessions, finish the others -> Health
//	GET    /v1/health           is thawd there, what does it hold   -> Health
//	GET    /metrics             Prometheus text format
//
// docs/openapi.yaml describes the same routes and bodies for clients in other languages; a test of this package
// compares it with the route table and the Go types.
//
// Every failure is an [Error]: a [Code] for programs, a message and a hint for people. The API has no authentication
// of its own: [Listen] makes the socket accessible to its owner alone.
//
// The package holds both ends, and nothing of what thawd does: [NewHandler] calls a [Backend], [Client] is the typed
// client.
package control
