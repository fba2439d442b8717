// Package rootfs gives each instance of a function a root file system of its own.
//
// A [Root] is what all instances of a function have in common: a folder with a Debian system, or an image in an OCI image layout, whose
// layers are unpacked once. An instance sees an overlay of it:
//
//	what the instance writes      upper, the instance's own
//	what was written before       layers, each captured with a snapshot, the newest first
//	the root                      one folder, or one for each layer of an image
//
// A [Layer] is what an instance had written when it was frozen. Capturing one is a rename: the upper folder of an overlay is, as it is, fit
// to be a lower one, with its marks for what was deleted and replaced (whiteouts and trusted.overlay attributes), hard links, holes and
// devices.
package rootfs
