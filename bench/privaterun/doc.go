// Package privaterun gives a program that measures CRIU a /run in which CRIU can remember what the kernel can do.
//
// CRIU finds that out once after boot and keeps it in /run, but only where that is a tmpfs, as it is on most machines. In some
// containers and virtual machines it is not, and each start of CRIU then probes the kernel anew, for up to a tenth of a second. That
// would be measured, and most of all in the mode that starts a second CRIU. There the program runs again in a mount namespace
// of its own, with a tmpfs at /run.
package privaterun
