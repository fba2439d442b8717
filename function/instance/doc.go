// Package instance takes one instance of a function from its start to its end: a container of runc's whose one process is the Python
// runner, with a root file system, a network namespace and a cgroup of its own.
//
//	Start -----> started --Import, Load--> loaded --Prepare--> prepared --Freeze--> frozen (its container is gone)
//	                                                              |
//	Restore, of a frozen one -----------------------------> prepared --Boot--> serving --Stop--> stopped
//
// A prepared instance can be frozen or booted; a restored one can load more and be frozen again, on top of what it was restored from. From
// every state [Instance.Close] leads to the end, and leaves nothing: no process, mount, namespace, cgroup or folder. So does every method
// that makes an instance and fails.
//
// A [Host] is the place where instances live: their folder, thawd, the network. A shell is an instance without a process: its folders,
// overlay, network namespace, bundle and pipes. It is made before the process, whose start or restore is then all that is left to do.
//
// What a container sees, besides its root file system:
//
//	/app                the code of the function, read-only
//	/.thaw/python       the SDK, read-only
//	/.thaw/packs        the packs of the store, read-only: memory is mapped from them
//	/etc/hosts, /etc/resolv.conf   files of the instance's own, read-only
//	/dev                the instance's own, with nothing of the root's; devices that were asked for appear at the boot
//
// An instance that will be frozen has no network and no devices before its boot, and both after it.
package instance
