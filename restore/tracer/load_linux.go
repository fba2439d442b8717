package tracer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"thaw/restore/tracer/trace"
)

// faultSymbol is what the kernel calls for every fault of every kind of memory, and for pages that it pins.
const faultSymbol = "handle_mm_fault"

// tracefs is where the kernel describes its tracepoints. Older systems have it below debugfs.
var tracefs = []string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"}

// A program is the BPF program in the kernel. Its maps live until close, its links until detach.
type program struct {
	coll  *ebpf.Collection
	life  []link.Link
	fault faultLinks

	point   trace.Point
	refused []Refusal
}

// A faultLinks is what sees faults, with the programs for it.
type faultLinks struct {
	coll  *ebpf.Collection
	links []link.Link
}

// settings are what the program is told before it is loaded.
type settings struct {
	ringBytes uint32
	maxPages  uint32
	byCgroup  bool
}

// load loads the program and attaches it: first what follows the life of processes, then what sees faults.
func load(s settings) (*program, error) {
	if runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("%w: the tracer knows the page faults of amd64 so far, not of %s", ErrNotSupported, runtime.GOARCH)
	}
	spec, err := loadProgram()
	if err != nil {
		return nil, err
	}
	execEvent, err := configure(spec, s)
	if err != nil {
		return nil, explain(err)
	}
	faults := spec.Programs
	spec.Programs = make(map[string]*ebpf.ProgramSpec)
	for _, name := range []string{programProgChoose, programProgTaskNew, programProgTaskExec, programProgTaskExit} {
		spec.Programs[name] = faults[name]
		delete(faults, name)
	}
	p := &program{}
	if p.coll, err = ebpf.NewCollection(spec); err != nil {
		return nil, explain(fmt.Errorf("load BPF program: %w", err))
	}
	if err := p.attachLife(execEvent); err != nil {
		return nil, explain(errors.Join(err, p.close()))
	}
	spec.Programs = faults
	p.point, p.fault, p.refused, err = choose(func(point trace.Point) (faultLinks, error) {
		return attachFaults(spec, p.coll.Maps, point)
	})
	if err != nil {
		return nil, explain(errors.Join(err, p.close()))
	}
	return p, nil
}

// configure sets sizes and variables. execEvent is the tracepoint that says best when a process executes a program.
func configure(spec *ebpf.CollectionSpec, s settings) (execEvent string, err error) {
	newTask, err := readFormat("task", "task_newtask")
	if err != nil {
		return "", err
	}
	exit, err := readFormat("sched", "sched_process_exit")
	if err != nil {
		return "", err
	}
	newPID, err := fieldOffset(newTask, "pid")
	if err != nil {
		return "", err
	}
	cloneFlags, err := fieldOffset(newTask, "clone_flags")
	if err != nil {
		return "", err
	}
	groupDead, err := fieldOffset(exit, "group_dead")
	if err != nil && !errors.Is(err, errNoField) {
		return "", err
	}
	execEvent = "sched_prepare_exec"
	if _, err := readFormat("sched", execEvent); errors.Is(err, fs.ErrNotExist) {
		execEvent = "sched_process_exec"
	}
	spec.Maps[programMapEvents].MaxEntries = s.ringBytes
	spec.Maps[programMapPages].MaxEntries = s.maxPages
	var byCgroup uint8
	if s.byCgroup {
		byCgroup = 1
	}
	for name, value := range map[string]any{
		programVarByCgroup: byCgroup, programVarWakeAt: uint64(s.ringBytes / 4),
		programVarNewtaskPid: newPID, programVarNewtaskCloneFlags: cloneFlags, programVarExitGroupDead: groupDead,
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return "", fmt.Errorf("set %s: %w", name, err)
		}
	}
	return execEvent, nil
}

// readFormat returns how the kernel describes the records of a tracepoint.
func readFormat(group, name string) (string, error) {
	var first error
	for _, dir := range tracefs {
		text, err := os.ReadFile(filepath.Join(dir, "events", group, name, "format"))
		if err == nil {
			return string(text), nil
		}
		if first == nil {
			first = err
		}
	}
	return "", fmt.Errorf("read tracepoint %s:%s: %w", group, name, first)
}

func (p *program) attachLife(execEvent string) error {
	for _, at := range []struct{ group, name, program string }{
		{"task", "task_newtask", programProgTaskNew},
		{"sched", execEvent, programProgTaskExec},
		{"sched", "sched_process_exit", programProgTaskExit},
	} {
		l, err := link.Tracepoint(at.group, at.name, p.coll.Programs[at.program], nil)
		if err != nil {
			return fmt.Errorf("attach to tracepoint %s:%s: %w", at.group, at.name, err)
		}
		p.life = append(p.life, l)
	}
	return nil
}

// pointPrograms says which programs serve a point.
var pointPrograms = map[trace.Point][]string{
	trace.PointFentry:         {programProgFaultFentry},
	trace.PointKprobe:         {programProgFaultKprobe},
	trace.PointTracepoints:    {programProgFaultUser, programProgFaultKernel},
	trace.PointUserTracepoint: {programProgFaultUser},
}

// attachFaults loads the programs of a point and attaches them.
func attachFaults(spec *ebpf.CollectionSpec, maps map[string]*ebpf.Map, point trace.Point) (faultLinks, error) {
	only := spec.Copy()
	only.Programs = make(map[string]*ebpf.ProgramSpec)
	for _, name := range pointPrograms[point] {
		only.Programs[name] = spec.Programs[name]
	}
	coll, err := ebpf.NewCollectionWithOptions(only, ebpf.CollectionOptions{MapReplacements: maps})
	if err != nil {
		return faultLinks{}, fmt.Errorf("load: %w", err)
	}
	f := faultLinks{coll: coll}
	for _, name := range pointPrograms[point] {
		l, err := attachFault(coll.Programs[name], name)
		if err != nil {
			return faultLinks{}, errors.Join(fmt.Errorf("attach: %w", err), f.close())
		}
		f.links = append(f.links, l)
	}
	return f, nil
}

func attachFault(p *ebpf.Program, name string) (link.Link, error) {
	switch name {
	case programProgFaultFentry:
		return link.AttachTracing(link.TracingOptions{Program: p})
	case programProgFaultKprobe:
		return link.Kprobe(faultSymbol, p, nil)
	case programProgFaultUser:
		return link.AttachRawTracepoint(link.RawTracepointOptions{Name: "page_fault_user", Program: p})
	default:
		return link.AttachRawTracepoint(link.RawTracepointOptions{Name: "page_fault_kernel", Program: p})
	}
}

// explain adds to an error of the kernel's what it means here.
func explain(err error) error {
	switch {
	case err == nil, errors.Is(err, ErrNotPermitted), errors.Is(err, ErrNotSupported):
		return err
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w; without root, tracefs must be readable as well (mount -o remount,gid=GROUP,mode=750 /sys/kernel/tracing): %w", ErrNotPermitted, err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: is tracefs mounted (mount -t tracefs none /sys/kernel/tracing)? %w", ErrNotSupported, err)
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%w: Linux 5.12 or newer with CONFIG_BPF_SYSCALL is needed: %w", ErrNotSupported, err)
	}
	return err
}

func (f *faultLinks) close() error {
	var errs []error
	for _, l := range f.links {
		errs = append(errs, l.Close())
	}
	f.links = nil
	if f.coll != nil {
		f.coll.Close()
		f.coll = nil
	}
	return errors.Join(errs...)
}

// detach stops the program. Its maps can still be read. It is idempotent.
func (p *program) detach() error {
	errs := []error{p.fault.close()}
	for _, l := range p.life {
		errs = append(errs, l.Close())
	}
	p.life = nil
	return errors.Join(errs...)
}

// close detaches, and gives the maps back.
func (p *program) close() error {
	err := p.detach()
	p.coll.Close()
	return err
}

// choose makes the program record a process, and returns its space; 0 if it is recorded already.
func (p *program) choose(pid uint32) (space uint32, err error) {
	space, err = p.coll.Programs[programProgChoose].Run(&ebpf.RunOptions{Context: uint64(pid)})
	if err != nil || space != 0 {
		return space, err
	}
	if err := p.coll.Maps[programMapChosen].Lookup(pid, &space); errors.Is(err, ebpf.ErrKeyNotExist) {
		return 0, fmt.Errorf("%w: too many processes are recorded", ErrTarget)
	} else if err != nil {
		return 0, err
	}
	return 0, nil
}

// forget undoes choose, and reports whether there was something to undo. The process still counts as live.
func (p *program) forget(pid uint32) (bool, error) {
	err := p.coll.Maps[programMapChosen].Delete(pid)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, nil
	}
	return err == nil, err
}

// variable returns a number that the program keeps.
func (p *program) variable(name string) (uint64, error) {
	var v uint64
	if err := p.coll.Variables[name].Get(&v); err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	return v, nil
}
