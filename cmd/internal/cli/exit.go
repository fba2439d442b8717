package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/sys/unix"

	"thaw/checkpoint"
	"thaw/control"
	"thaw/function/gateway"
	"thaw/function/instance"
	"thaw/function/network"
	"thaw/function/registry"
	"thaw/function/rootfs"
	"thaw/node"
	"thaw/pagestore"
	"thaw/pagestore/blob"
	"thaw/pagestore/blob/objectstore"
	"thaw/restore/criu"
	"thaw/restore/tracer"
	"thaw/restore/tracer/trace"
	"thaw/restore/workingset"
	"thaw/snapshot"
)

// A Code is an exit code of thaw and thawd. They are documented and do not change meaning.
type Code int

const (
	OK          Code = 0   // done
	Failure     Code = 1   // failed for a reason that no other code names
	Usage       Code = 2   // the command line, or a name on it, is wrong
	NotFound    Code = 3   // no such snapshot, session, process, container, file or folder
	Corrupt     Code = 4   // stored pages or images are damaged, or of a kind that is not understood
	Busy        Code = 5   // a name, path or store is taken or in use, or thawd is ending
	Permission  Code = 6   // a permission is missing
	Missing     Code = 7   // something that the command needs is not there: thawd, CRIU, runc, a kernel feature
	NoSpace     Code = 8   // the disk is full
	Interrupted Code = 130 // stopped by SIGINT or SIGTERM
)

// Codes lists the codes and what they mean, in the order of their numbers.
func Codes() []CodeMeaning {
	return []CodeMeaning{
		{OK, "ok", "done"},
		{Failure, "failure", "failed for a reason that no other code names"},
		{Usage, "usage", "the command line, or a name on it, is wrong"},
		{NotFound, "not found", "no such snapshot, session, process, container, file or folder"},
		{Corrupt, "corrupt", "stored pages or images are damaged, or of a kind that is not understood"},
		{Busy, "busy", "a name, path or store is taken or in use, or thawd is ending"},
		{Permission, "permission", "a permission is missing"},
		{Missing, "missing", "something that the command needs is not there: thawd, CRIU, runc, a kernel feature"},
		{NoSpace, "no space", "the disk is full; nothing was changed"},
		{Interrupted, "interrupted", "stopped by SIGINT or SIGTERM"},
	}
}

// CodeMeaning is a line of the table of exit codes.
type CodeMeaning struct {
	Code    Code   `json:"exit_code"`
	Name    string `json:"name"`
	Meaning string `json:"meaning"`
}

// String returns the code's name.
func (c Code) String() string {
	for _, m := range Codes() {
		if m.Code == c {
			return m.Name
		}
	}
	return fmt.Sprintf("exit code %d", int(c))
}

// An Error is a failure with the exit code and the advice that go with it. Commands make one where the cause does not say
// enough by itself.
type Error struct {
	Code Code
	Err  error
	Hint string // what to do, empty if there is no advice
}

// Error returns the failure without the hint.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Usagef returns an error of the command line.
func Usagef(format string, args ...any) error {
	return &Error{Code: Usage, Err: fmt.Errorf(format, args...)}
}

const criuHint = "--criu and --runc, THAW_CRIU and THAW_RUNC name other ones; \"make deps\" in thaw's sources fetches a CRIU that is new " +
	"enough; thaw doctor says what this host has"

// causes says which exit code and which hint go with which errors of the packages below. The first that matches counts,
// so the more specific ones come first.
var causes = []struct {
	err  error
	code Code
	hint string
}{
	{context.Canceled, Interrupted, ""},

	{pagestore.ErrName, Usage, "a name is SNAPSHOT or NAMESPACE/SNAPSHOT, of letters, digits, '.', '_' and '-'"},
	{pagestore.ErrBeingRemoved, Busy, "it is gone when its last restore has ended"},
	{pagestore.ErrNotFound, NotFound, "thaw snapshot ls lists the snapshots"},
	{pagestore.ErrNotStore, NotFound, "thaw snapshot create or import makes a store; --store and THAW_STORE name another one"},
	{pagestore.ErrNotEmpty, Busy, "name a folder that is empty or does not exist, or the store: --store, THAW_STORE"},
	{pagestore.ErrExists, Busy, "choose another name, or remove the snapshot first: thaw snapshot rm"},
	{pagestore.ErrLocked, Busy, "another import, removal or collection is at work; try again when it is done"},
	{pagestore.ErrNoSpace, NoSpace, "make room (thaw snapshot rm, then thaw snapshot gc), or use a store on another disk"},
	{pagestore.ErrMissingPack, Corrupt, "thaw snapshot verify says which snapshots are hit; freeze them anew"},
	{pagestore.ErrCorrupt, Corrupt, "thaw snapshot verify says which snapshots are hit; freeze them anew"},
	{pagestore.ErrVersion, Corrupt, "the store was written by a newer thaw: use that one"},
	{node.ErrDeadline, Missing, "what has arrived stays, and the next try goes on with it; is the place there where it comes from? --page-deadline waits longer"},
	{node.ErrConfig, Usage, ""},
	{pagestore.ErrNotLocal, Missing, "pages are elsewhere, and cannot be had at the moment: thaw snapshot inspect says where they would come from"},

	{objectstore.ErrURL, Usage, "--object-store and THAW_OBJECT_STORE name one: s3://BUCKET[/PREFIX][?endpoint=http://HOST:PORT], gs://BUCKET, file:///FOLDER"},
	{blob.ErrDenied, Permission, "credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), the shared file (AWS_PROFILE), or the cloud's services"},
	{blob.ErrBusy, Busy, "the place asks for less: try again in a while; what has arrived there stays"},
	{blob.ErrNoSpace, NoSpace, "make room there: thaw remote rm, then thaw remote gc"},
	{blob.ErrNotFound, NotFound, "thaw remote ls lists what is there"},

	{criu.ErrRemotePages, Corrupt, "dump without --lazy-pages, so that all pages are in the images"},
	{criu.ErrUnsupported, Corrupt, "the images come from a CRIU that this thaw does not know; what it cannot read it refuses"},
	{criu.ErrImages, Corrupt, "dump again: the images cannot be restored as they are"},
	{criu.ErrSocketTaken, Busy, "use another work folder, or end the server that listens there"},

	{rootfs.ErrNoRoot, Usage, "--root names a folder with a whole system in it, as mmdebstrap or debootstrap make it, or oci:LAYOUT[:TAG]"},
	{rootfs.ErrNoImage, NotFound, "--root oci:LAYOUT:TAG names one of the images in the layout"},
	{rootfs.ErrCorrupt, Corrupt, "the image, or the layer of a snapshot, is not what it says it is: copy it anew, or freeze again"},
	{instance.ErrBusy, Busy, "another function server uses this folder: --state names another one"},
	{network.ErrBusy, Busy, "another function server runs here: --api names another socket"},
	{network.ErrSubnetTaken, Busy, "--subnet names another one"},
	{network.ErrBridgeTaken, Busy, "another function server may have made it: --bridge and --subnet name others; an empty --bridge is none"},
	{gateway.ErrUnavailable, Missing, "start one (thaw serve), or name its socket with --api or THAW_API"},

	{snapshot.ErrCRIUTooOld, Missing, criuHint},
	{snapshot.ErrNotRecorded, Missing, "thawd records with eBPF: thaw doctor says what works here, and what has to be granted"},
	{snapshot.ErrPIDTaken, Busy, "end that process, or restore into a container, which has numbers of its own: --bundle and --id"},
	{snapshot.ErrNotEmpty, Busy, "name a folder that is empty or does not exist"},
	{checkpoint.ErrToolMissing, Missing, criuHint},
	{checkpoint.ErrContainerExists, Busy, "choose another --id, or delete the container: runc delete"},
	{checkpoint.ErrCgroupTaken, Busy, "give the bundle a cgroup of its own (linux.cgroupsPath in config.json)"},

	{tracer.ErrNotPermitted, Permission, "run as root, or grant CAP_BPF and CAP_PERFMON; thaw doctor says what works here"},
	{tracer.ErrNotSupported, Missing, "thaw doctor says what this kernel offers, and what it lacks"},
	{tracer.ErrNoProcess, NotFound, "name a process that runs, by the number that it has on the host"},
	{tracer.ErrTarget, Usage, ""},
	{trace.ErrVersion, Corrupt, "the trace was written by another thaw: use that one, or record again"},
	{trace.ErrCorrupt, Corrupt, "record again: what is damaged cannot be told from what was recorded"},
	{workingset.ErrForeign, Usage, "merge sets of the same snapshot only; thaw trace show says of which one a set is"},
	{workingset.ErrVersion, Corrupt, "the working set was written by another thaw: use that one, or leave the file out"},
	{workingset.ErrCorrupt, Corrupt, "leave the file out: what is damaged cannot be told from what was learned"},

	{control.ErrSocketTaken, Busy, "another thawd runs; use it, or choose another --socket"},
	{control.ErrNotSocket, Busy, "choose another --socket, or move the file away"},
	{control.ErrSocketName, Usage, "choose a shorter --socket"},
	{control.CodeUnavailable, Missing, ""},
	{control.CodeSnapshotNotFound, NotFound, "thaw snapshot ls lists the snapshots; does thawd use the same store?"},
	{control.CodeNotFound, NotFound, ""},
	{control.CodeInvalid, Usage, ""},
	{control.CodeCorrupt, Corrupt, ""},
	{control.CodeBeingRemoved, Busy, ""},
	{control.CodeInUse, Busy, ""},
	{control.CodeWouldLoseMemory, Busy, ""},
	{control.CodeNotRecorded, Missing, ""},
	{control.CodeDraining, Busy, ""},
	{control.CodeTooMany, Busy, ""},
	{control.CodePermission, Permission, ""},
	{control.CodeNoSpace, NoSpace, ""},
	{control.CodeNoTiers, Missing, ""},
	{control.CodeElsewhere, Missing, ""},

	{registry.ErrNotFound, NotFound, "thaw functions lists what is deployed"},
	{registry.ErrNotRegistry, NotFound, "thaw deploy makes it; --state and THAW_STATE name another folder"},
	{registry.ErrNotEmpty, Busy, "name a folder that is empty or does not exist: --state, THAW_STATE"},
	{registry.ErrCurrent, Busy, "deploy another version first, or remove the whole app"},
	{registry.ErrChanged, Busy, "deploy again when nobody writes to the app's folder"},
	{registry.ErrNoSpace, NoSpace, "make room (thaw functions rm), or keep the functions on another disk: --state"},
	{registry.ErrCorrupt, Corrupt, "deploy again, or remove the version: thaw functions rm"},
	{registry.ErrVersion, Corrupt, "it was written by a newer thaw: use that one"},

	{fs.ErrPermission, Permission, "run as root, or as the owner of the store"},
	{unix.ENOSPC, NoSpace, "make room on the disk"},
	{unix.EDQUOT, NoSpace, "make room within the quota"},
	{fs.ErrNotExist, NotFound, ""},
}

// Explain returns the exit code of err and what to do about it.
func Explain(err error) (Code, string) {
	if err == nil {
		return OK, ""
	}
	code, hint := Failure, ""
	for _, c := range causes {
		if errors.Is(err, c.err) {
			code, hint = c.code, c.hint
			break
		}
	}
	var api *control.Error
	if errors.As(err, &api) && api.Hint != "" {
		hint = api.Hint
	}
	var own *Error
	if errors.As(err, &own) {
		code = own.Code
		if own.Hint != "" {
			hint = own.Hint
		}
	}
	return code, hint
}

// Report tells err on w: for people, or as one line of JSON. It returns the exit code.
func Report(w io.Writer, program string, err error, asJSON bool) Code {
	code, hint := Explain(err)
	if err == nil {
		return code
	}
	if asJSON {
		// What is told is strings and a number, and if w fails there is nobody to tell.
		_ = json.NewEncoder(w).Encode(struct {
			Error jsonError `json:"error"`
		}{jsonError{int(code), code.String(), err.Error(), hint}})
		return code
	}
	fmt.Fprintf(w, "%s: %v\n", program, err)
	if hint != "" {
		fmt.Fprintf(w, "%s: hint: %s\n", program, hint)
	}
	if code == Usage {
		fmt.Fprintf(w, "%s: --help shows how a command is used\n", program)
	}
	return code
}

// jsonError is what --json makes of a failure.
type jsonError struct {
	ExitCode int    `json:"exit_code"`
	Kind     string `json:"kind"`
	Message  string `json:"message"`
	Hint     string `json:"hint,omitempty"`
}
