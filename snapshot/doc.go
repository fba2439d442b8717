// Package snapshot takes processes through a snapshot's life: it freezes them into the store and thaws them from it.
//
//	freeze:  CRIU or runc dumps the process  -> images -> Import: pages to the store, the rest to the skeleton
//	thaw:    thawd makes a session -> CRIU or runc restores the skeleton -> the process runs, its memory follows
//
// It joins packages that do not know each other: checkpoint, which runs CRIU and runc; restore/criu, which reads their
// images; pagestore, which keeps the pages; control, which asks thawd for a session.
//
// What a restore must repeat of the dump (file locks, open connections and the like), and what the process may count on
// in its host (the features of the CPU), is kept in the snapshot as a [Host].
package snapshot
