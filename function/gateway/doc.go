// Package gateway is HTTP in front of a function server: JSON in, JSON out.
//
//	POST /v1/apps/{app}/{object}/{method}   call a method             -> Answer
//	POST /v1/apps/{app}/{object}            call a function           -> Answer
//	*    /web/{app}/{object}/{endpoint}/... a request to an endpoint  -> what it answers
//	POST /v1/freeze                         take a snapshot now       -> Frozen
//	GET  /v1/instances                      instances that serve      -> InstanceList
//	GET  /v1/health                         is it there               -> Health
//	GET  /metrics                           Prometheus text format
//
// The body of a call is a JSON object, the arguments by name, or a JSON array, the arguments in order; nothing means no arguments. An object
// with parameters gets them in the query, as ?parameters={...}. Every failure is an Error, in an ErrorBody.
//
// There is no authentication: a unix socket is for its owner alone, and what listens on a network address has to stand behind something that
// knows its callers.
package gateway
