package tracer

import (
	"errors"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/google/go-cmp/cmp"

	"thaw/internal/testenv"
	"thaw/restore/tracer/trace"
)

// Flags of handle_mm_fault, as bpf/kernel.h has them.
const (
	faultWrite  = 1 << 0
	faultUser   = 1 << 6
	faultRemote = 1 << 7
)

// Few kernels of test machines can attach to functions. But all can run the program for them with arguments of ours: as
// one for a raw tracepoint, which gets its arguments in the same way.
func TestProgramForFentryUnderstandsItsArguments(t *testing.T) {
	testenv.NeedTracing(t)
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		t.Skipf("needs BTF: use a kernel with CONFIG_DEBUG_INFO_BTF: %v", err)
	}
	spec, err := loadProgram()
	if err != nil {
		t.Fatal(err)
	}
	fault := spec.Programs[programProgFaultFentry]
	fault.Type, fault.AttachType, fault.AttachTo = ebpf.RawTracepoint, ebpf.AttachNone, ""
	spec.Programs = map[string]*ebpf.ProgramSpec{programProgFaultFentry: fault, programProgChoose: spec.Programs[programProgChoose]}
	if _, err := configure(spec, settings{ringBytes: ringSize(0), maxPages: 100}); err != nil {
		t.Fatal(err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer coll.Close()
	if space, err := (&program{coll: coll}).choose(uint32(os.Getpid())); err != nil || space != 1 {
		t.Fatalf("chosen with space %d, %v", space, err)
	}
	const vma, regs = 0, 0
	for _, args := range [][]uint64{
		{vma, 0x10000, faultUser, regs},
		{vma, 0x10123, faultUser, regs}, // the same page
		{vma, 0x10000, faultUser | faultWrite, regs},
		{vma, 0x10000, faultWrite, regs},
		{vma, 0x20000, 0, regs},
		{vma, 0x30000, faultWrite, regs},
		{vma, 0x40000, faultRemote, regs},          // whose memory it is cannot be found out: nobody's
		{vma, 0xffffffff81000000, faultUser, regs}, // of the kernel
		{vma, 0x50000, faultUser | faultWrite, regs},
	} {
		if _, err := coll.Programs[programProgFaultFentry].Run(&ebpf.RunOptions{Context: args}); err != nil {
			t.Fatal(err)
		}
	}
	want := []trace.Event{
		{Addr: 0x10000}, {Addr: 0x10000, Write: true}, {Addr: 0x20000, Kernel: true},
		{Addr: 0x30000, Write: true, Kernel: true}, {Addr: 0x50000, Write: true},
	}
	if diff := cmp.Diff(want, drain(t, coll.Maps[programMapEvents])); diff != "" {
		t.Errorf("touches (-want +got):\n%s", diff)
	}
}

func TestProgramsForWhatIsNotHerePassTheVerifier(t *testing.T) {
	testenv.NeedTracing(t)
	for _, name := range []string{programProgFaultKprobe, programProgFaultUser, programProgFaultKernel} {
		spec, err := loadProgram()
		if err != nil {
			t.Fatal(err)
		}
		spec.Programs = map[string]*ebpf.ProgramSpec{name: spec.Programs[name]}
		spec.Maps[programMapPages].MaxEntries = 1
		coll, err := ebpf.NewCollection(spec)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		coll.Close()
	}
}

// drain returns what a ring buffer holds, without what differs between runs.
func drain(t *testing.T, ring *ebpf.Map) []trace.Event {
	t.Helper()
	r, err := ringbuf.NewReader(ring)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Flush(); err != nil {
		t.Fatal(err)
	}
	var all []trace.Event
	for {
		record, err := r.Read()
		if errors.Is(err, ringbuf.ErrFlushed) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		e, err := parseEvent(record.RawSample, 0)
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind != trace.KindTouch || e.Space != 1 || e.PID != uint32(os.Getpid()) || e.TID == 0 || e.Time == 0 {
			t.Errorf("event is %+v", e)
		}
		all = append(all, trace.Event{Addr: e.Addr, Write: e.Write, Kernel: e.Kernel})
	}
}
