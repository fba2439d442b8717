// Package checkpoint drives CRIU and runc: it freezes processes and containers into image folders, and starts them from
// image folders again.
//
// It knows no image format and no page store. It starts the tools, gives every run image and work folders of its own,
// turns a failure into an [Error] that carries the tool's own words, and cleans up what a failed restore leaves behind.
//
// Words used here: an image folder holds what CRIU dumped; a work folder holds CRIU's log, its socket for lazy pages and
// other files of one run; a bundle is an OCI bundle, which runc makes a container from. A restore is eager when CRIU
// reads all memory before the process runs, and lazy when it leaves anonymous memory to a server that listens on
// [LazyPagesSocket] in the work folder.
//
// What a failed restore leaves, and why deleting needs care: runc binds the container's root file system to "criu-root"
// below its state folder, and CRIU mounts cgroups at ".criu.cgyard.*" below the work folder. A delete that follows such a
// mount removes the root file system itself. [RemoveAll] refuses to, and every failed restore unmounts first.
package checkpoint
