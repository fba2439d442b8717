// Package fetch brings frames from places that have them, each frame once for all who want it.
//
// # Words
//
//	object   a sequence of frames that some places have, all with the same content; its name is opaque here.
//	frame    the unit that is asked for and checked, 128 KiB of memory or so; counted from 0 within its object.
//	source   a place that objects can be had from: a peer, an object store. It may be slow, dead, or wrong.
//	class    how urgent a frame is: [Demand], [Ahead], [Mirror].
//	call     one call of [Fetcher.Fetch]: who wants frames, and the function that takes them.
//	flight   a frame that at least one call waits for. There is one for each (object, frame), however many calls.
//	range    the frames that one request asks a source for, one after the other.
//	request  one call of [Source.Frames], and the connection that it occupies meanwhile.
//
// # The life of a flight
//
//	           Fetch                  a connection is free             taken by a call
//	(none) ------------->  ready  ---------------------------> asked ------------------> done
//	                         ^                                   |
//	                         |          the last request failed, |
//	                         |        another source is at hand  |
//	                         |<----------------------------------|
//	                         |    its time has come              |  none is
//	                         '----------------------  resting <--'
//
// From each state a flight is dropped when the last call that waits for it has gone, and its requests are cancelled if they bring nothing
// else that is wanted. While a frame is being taken its flight stays, so that nobody who comes meanwhile asks for it anew.
//
// A flight has one request, but: a hedge may run beside it, when its source takes longer than usual for a frame that a process waits for;
// and a range may have been asked for that reaches it much later, which a demand overtakes. The first that delivers wins.
//
// # Order
//
// A source has some connections; bulk (Ahead and Mirror) leaves one or more of them alone. What is ready starts by class, and nothing of a
// slower class starts while something of a faster one waits for a connection. Within a class objects take turns. What has been started is
// left to run.
//
// A demand that finds its frame ready in a slower class raises it. One that finds it in a range that is on its way waits for it there if
// the range is at most [Options.Near] frames from it.
//
// Ranges begin with one frame, those of bulk with eight, and double, as long as one begins where another has ended, up to [Options.MaxFrames].
// Only frames that somebody wants are asked for.
//
// # When a source fails
//
//	it says                      it is                                              the frame is
//	[ErrNotHere]                 not asked for this object for a while              asked of the next source
//	[ErrNotYet]                  not asked for this object for a while that         asked of the next source
//	                               doubles, if it says so time and again
//	[ErrDiffers]                 not asked for this object for a longer time:       asked of the next source
//	                               logged, counted
//	[ErrBusy]                    left alone for a time that doubles                 asked of the next source
//	something else, too little,  ranked lower; from the second time in a row        asked of the next source
//	nothing for Options.Stall      left alone for a time that doubles
//	wrong bytes ([ErrWrong])     not asked for this object for a longer time that   asked of the next source
//	                               doubles: logged, counted and named in [Stats];
//	                               if they were of several objects, set aside
//
// A source that is set aside is asked for nothing as long as another can be asked. One damaged object so costs the others nothing, and if it is the only one that
// has an object it goes on: what it delivers is checked.
//
// When no source is left that has not failed, the frame rests for a time that doubles, with jitter, and all may be asked again. All that is
// asked again comes out of a budget, which fills with a share of what succeeds, so that a failing place is not asked more often than a
// healthy one. This goes on until the caller's context ends: how long a fault may be held is the caller's policy. Then the error, [*Error],
// says what each source said.
//
// # Which source
//
// The one that is expected to deliver soonest: measured time to the first frame and for each further one, worse with failures of late and
// with what runs there already. A source of a higher tier ([Profile]) has to be four times as fast. What was measured long ago does not
// count. A demand that finds the best source without a free connection takes the next; bulk does so only within a tier, so that busy peers
// do not send everybody to the object store.
//
// # Trust
//
// Nothing that a source says is believed. The call's function checks content and returns an error that wraps [ErrWrong] if it is not what
// it should be. A frame that is delivered out of turn, or twice, ends the request.
//
// # Goroutines
//
// A [Fetcher] has one goroutine that waits for times to come (hedges, stalls, rests), from [New] to [Fetcher.Close], and one for each
// request, at most as many as the sources have connections. Close waits for them all. Functions of calls run on requests' goroutines; none
// runs after its Fetch has returned.
//
// # Lock order
//
//	Fetcher.mu   all of the state; held for look-ups and bookkeeping only
//
// It is the only lock. No function of others is called with it: neither Source.Frames, nor what takes frames, nor what names sources, nor
// an observer; but for Options.Random.
package fetch
