package daemon

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

	"thaw/control"
	"thaw/pagestore"
	"thaw/restore/criu"
)

// apiCauses says with which code and hint a client is told of which error. The first that matches counts.
var apiCauses = []struct {
	err  error
	code control.Code
	hint string
}{
	{pagestore.ErrName, control.CodeInvalid, "a name is SNAPSHOT or NAMESPACE/SNAPSHOT, of letters, digits, '.', '_' and '-'"},
	{pagestore.ErrBeingRemoved, control.CodeBeingRemoved, "it is gone when its last restore has ended"},
	{pagestore.ErrNotFound, control.CodeSnapshotNotFound, "thaw snapshot ls lists the snapshots; does thawd use the same store?"},
	{pagestore.ErrCorrupt, control.CodeCorrupt, "thaw snapshot verify says what is damaged; freeze the process anew"},
	{pagestore.ErrMissingPack, control.CodeCorrupt, "thaw snapshot verify says what is damaged; freeze the process anew"},
	{pagestore.ErrVersion, control.CodeCorrupt, "the snapshot was written by a newer thaw: use a thawd of that version"},
	{criu.ErrSocketTaken, control.CodeInUse, "use another work folder, or end the server that listens there"},
	{criu.ErrEagerPages, control.CodeCorrupt, "thaw snapshot import mends such images"},
	{criu.ErrImages, control.CodeCorrupt, "dump again: the images cannot be restored as they are"},
	{fs.ErrPermission, control.CodePermission, "thawd runs as another user than the owner of the folder"},
	{unix.ENOSPC, control.CodeNoSpace, "make room on the disk that holds the work folders"},
	{unix.EDQUOT, control.CodeNoSpace, "make room within the quota"},
	{fs.ErrNotExist, control.CodeNotFound, "name a folder that thawd can see"},
	{unix.ENOTDIR, control.CodeInvalid, "name a folder that thawd can see"},
}

// apiError returns err as the API tells it.
func apiError(err error) error {
	var told *control.Error
	if errors.As(err, &told) {
		return told
	}
	for _, c := range apiCauses {
		if errors.Is(err, c.err) {
			return &control.Error{Code: c.code, Message: err.Error(), Hint: c.hint}
		}
	}
	return err
}
