package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Each of these peers is served in memory, by a clock that jumps when all wait: nothing here takes as long as it says.
func TestAPeerThatIsTooSlowIsLeft(t *testing.T) {
	head := "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
	for _, tt := range []struct {
		name string
		do   func(c net.Conn)
		err  error
		// after is when the reading ends
		after time.Duration
	}{
		{"it stalls before it answers", func(c net.Conn) { io.Copy(io.Discard, c) }, ErrSlow, 10 * time.Second},
		{"it stalls in the head", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			io.Copy(io.Discard, c)
		}, ErrSlow, 10 * time.Second},
		{"it sends a byte of the head a second", func(c net.Conn) { drip(c, []byte(head), 1, time.Second) }, ErrSlow, 10 * time.Second},
		{"it stalls in the body", func(c net.Conn) {
			io.WriteString(c, head+"bytes")
			io.Copy(io.Discard, c)
		}, ErrSlow, 10 * time.Second},
		{"it sends a byte a second", func(c net.Conn) {
			io.WriteString(c, head)
			drip(c, make([]byte, 1_000_000), 1, time.Second)
		}, ErrSlow, 10 * time.Second},
		{"it sends enough, and then too little", func(c net.Conn) {
			io.WriteString(c, head)
			drip(c, make([]byte, 100_000), 1250, time.Second) // 10,000 each eight seconds
			drip(c, make([]byte, 900_000), 900, time.Second)
		}, ErrSlow, (79 + 10) * time.Second},
		{"it sends just enough", func(c net.Conn) {
			io.WriteString(c, head)
			drip(c, make([]byte, 1_000_000), 1250, time.Second)
		}, nil, 799 * time.Second},
		{"it sends 10,000 bytes every nine seconds", func(c net.Conn) {
			io.WriteString(c, head)
			drip(c, make([]byte, 1_000_000), 10_000, 9*time.Second)
		}, nil, 99 * 9 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				authority := must(NewAuthority())(t)
				a, _ := keysOf(t, authority, "a", 24*time.Hour)
				b, _ := keysOf(t, authority, "b", 24*time.Hour)
				n := inMemory()
				stop := raw(t, n, b, tt.do)
				c := connect(t, n, a, ClientOptions{Window: 10 * time.Second, MinRate: 1000})
				begin := time.Now()
				got, err := readAll(c, packKey, 0, -1)
				if !errors.Is(err, tt.err) || err == nil && len(got) != 1_000_000 {
					t.Errorf("%d bytes, %v; want %v", len(got), err, tt.err)
				}
				// Up to 5 s more go by when a connection is hung up on whose other end does not read: crypto/tls wants to say good-bye.
				if after := time.Since(begin); after < tt.after || after > tt.after+5*time.Second {
					t.Errorf("it took %s, want %s", after, tt.after)
				}
				c.Close()
				stop()
			})
		})
	}
}

// drip writes n bytes at a time until somebody hangs up, the first at once.
func drip(c net.Conn, b []byte, n int, every time.Duration) {
	for i := 0; len(b) > 0; i++ {
		if i > 0 {
			time.Sleep(every) // of the bubble's clock
		}
		k := min(n, len(b))
		if _, err := c.Write(b[:k]); err != nil {
			return
		}
		b = b[k:]
	}
}

func TestAReaderThatTakesItsTimeIsNotThePeersFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		authority := must(NewAuthority())(t)
		a, _ := keysOf(t, authority, "a", 24*time.Hour)
		b, _ := keysOf(t, authority, "b", 24*time.Hour)
		n := inMemory()
		src := &memory{blobs: map[string][]byte{packKey: content(100)}}
		stop := start(t, n, NewServer(src, b, ServerOptions{Allow: onlyTeam, Stall: 24 * time.Hour}))
		c := connect(t, n, a, ClientOptions{Window: time.Second})
		r, err := c.Open(t.Context(), packKey, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			time.Sleep(time.Minute) // of the bubble's clock
			if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		r.Close()
		c.Close()
		stop()
	})
}

func TestTheDeadlineOfTheContextIsTheError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		authority := must(NewAuthority())(t)
		a, _ := keysOf(t, authority, "a", time.Hour)
		b, _ := keysOf(t, authority, "b", time.Hour)
		n := inMemory()
		stop := raw(t, n, b, func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
			io.Copy(io.Discard, c)
		})
		c := connect(t, n, a, ClientOptions{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r, err := c.Open(ctx, packKey, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrSlow) || string(got) != "abc" {
			t.Errorf("%q and %v", got, err)
		}
		r.Close()
		c.Close()
		stop()
	})
}

func TestALimitHoldsForAllTogether(t *testing.T) {
	const rate, seconds = 1 << 20, 60
	for _, tt := range []struct {
		name        string
		bulk, small int // how many at a time
	}{
		{"one bulk transfer", 1, 0}, {"ten bulk transfers", 10, 0}, {"small requests", 0, 10}, {"both", 10, 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := NewLimiter(rate)
				ctx, cancel := context.WithTimeout(t.Context(), seconds*time.Second)
				defer cancel()
				var mu sync.Mutex
				passed := map[string]int{}
				var group sync.WaitGroup
				run := func(kind string, n int, total int64) {
					for l.wait(ctx, n, total) == nil {
						mu.Lock()
						passed[kind] += n
						mu.Unlock()
					}
				}
				for range tt.bulk {
					group.Go(func() { run("bulk", piece, 1<<30) })
				}
				for range tt.small {
					group.Go(func() { run("small", 16<<10, 16<<10) })
				}
				group.Wait()
				all := passed["bulk"] + passed["small"]
				// What is beyond the rate: a burst in each lane; and of bulk transfers, while small requests take all, what they had a promise for.
				most := rate*seconds + 2*burst
				if tt.bulk > 0 && tt.small > 0 {
					most += rate * seconds / 4
				}
				if all > most || all < rate*seconds*9/10 {
					t.Errorf("%d bytes passed in %d s, %v; the limit is %d a second", all, seconds, passed, rate)
				}
			})
		})
	}
}

func TestSmallRequestsDoNotWaitForABurstOfBulk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1 << 20
		l := NewLimiter(rate)
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		for range 100 { // each stands in line with a piece: 12.5 s of the limit
			group.Go(func() {
				for l.wait(ctx, piece, 1<<30) == nil {
				}
			})
		}
		synctest.Wait()
		for i := range 10 {
			begin := time.Now()
			if err := l.wait(ctx, 128<<10, 128<<10); err != nil {
				t.Fatal(err)
			}
			// Alone, ten of them have a burst first, and then the rate.
			if waited := time.Since(begin); waited > time.Second/8+time.Millisecond {
				t.Errorf("small request %d waited for %s", i, waited)
			}
		}
		cancel()
		group.Wait()
	})
}

func TestTransfersKeepToTheLimits(t *testing.T) {
	for _, side := range []string{"send", "receive"} {
		t.Run(side, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const rate = 1 << 20
				authority := must(NewAuthority())(t)
				a, _ := keysOf(t, authority, "a", time.Hour)
				b, _ := keysOf(t, authority, "b", time.Hour)
				n := inMemory()
				src := &memory{blobs: map[string][]byte{packKey: content(4<<20 + burst)}}
				server, client := ServerOptions{Allow: onlyTeam}, ClientOptions{}
				if side == "send" {
					server.Send = NewLimiter(rate)
				} else {
					client.Receive = NewLimiter(rate)
				}
				stop := start(t, n, NewServer(src, b, server))
				c := connect(t, n, a, client)
				begin := time.Now()
				var group sync.WaitGroup
				for range 3 {
					group.Go(func() {
						if _, err := readAll(c, packKey, 0, -1); err != nil {
							t.Error(err)
						}
					})
				}
				group.Wait()
				total := 3*(4<<20+burst) - burst
				if took, want := time.Since(begin), time.Duration(total)*time.Second/rate; (took - want).Abs() > 10*time.Millisecond {
					t.Errorf("it took %s, want %s", took, want)
				}
				c.Close()
				stop()
			})
		})
	}
}

func TestNoLimiterIsNoLimit(t *testing.T) {
	for _, rate := range []int64{0, -1} {
		if l := NewLimiter(rate); l != nil || l.wait(t.Context(), 1<<40, 1<<40) != nil {
			t.Error(fmt.Sprint(rate, " is a limit"))
		}
	}
}
