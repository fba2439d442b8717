// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Reports the first touches of pages by chosen processes.
 *
 * One of the programs on page faults is attached, or both raw tracepoints: attach.go chooses. The three on the life of
 * processes keep the set of the chosen ones up to date. Everything else is decided in Go.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

char licence[] SEC("license") = "Dual BSD/GPL";

#define PAGE_SHIFT 12
/* A page in a space is a number of 64 bits: 44 suffice for pages of 57-bit addresses, 20 are left for the space. */
#define SPACE_SHIFT 44
#define MAX_SPACES (1 << 20)

enum kind {
	KIND_TOUCH = 1,
	KIND_JOIN, /* a process of the cgroup touched memory for the first time */
	KIND_FORK, /* addr: the space of the parent */
	KIND_EXEC, /* addr: the space before it */
	KIND_EXIT,
};

enum {
	FLAG_WRITE = 1,
	FLAG_KERNEL = 2,
};

/* What user space reads; event.go knows the layout. */
struct event {
	__u64 time; /* CLOCK_MONOTONIC, ns */
	__u64 addr;
	__u32 space;
	__u32 pid; /* in the initial pid namespace, as all numbers here */
	__u32 tid; /* 0: no thread of the process, but somebody from outside */
	__u8 kind;
	__u8 flags;
	__u16 reserved;
};

/* Settings: written before loading. A field at offset 0 does not exist in this kernel's tracepoint. */
volatile const __u8 by_cgroup = 0;
volatile const __u64 wake_at = 0; /* bytes in the ring buffer */
volatile const __u32 newtask_pid = 0;
volatile const __u32 newtask_clone_flags = 0;
volatile const __u32 exit_group_dead = 0;

/* Read by user space. lost_space counts touches that there was no more room for in pages, lost_ring events in events. */
__u64 lost_ring = 0;
__u64 lost_space = 0;
__u64 live = 0;	      /* chosen processes */
__u32 next_space = 1; /* numbers from here on are free */

/*
 * A bit for each pid, set while it may be in the map of the chosen: what all others pay at each fault is a look at it. There
 * are less than 1 << 22 pids (PID_MAX_LIMIT).
 */
__u64 maybe_chosen[1 << 16] = {};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} events SEC(".maps");

/* The chosen processes: the space that each has now. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 14);
	__type(key, __u32);
	__type(value, __u32);
} chosen SEC(".maps");

/* The pages that have been touched. Allocated in advance: a fault is no place to wait for memory, or to fail to get it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 20);
	__type(key, __u64);
	__type(value, __u32);
} pages SEC(".maps");

enum {
	SEEN = 1,
	SEEN_WRITE = 2,
};

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} cgroups SEC(".maps");

/*
 * Waking the reader costs the faulting thread more than all else here. So touches wait until the reader looks by itself,
 * as it does many times in a second, or until the buffer is a quarter full.
 */
static __always_inline __u64 wakeup(__u8 kind)
{
	if (kind != KIND_TOUCH || bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) > wake_at)
		return BPF_RB_FORCE_WAKEUP;
	return BPF_RB_NO_WAKEUP;
}

static __always_inline void report(__u8 kind, __u8 flags, __u32 space, __u32 pid, __u32 tid, __u64 addr)
{
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		__sync_fetch_and_add(&lost_ring, 1);
		return;
	}
	e->time = bpf_ktime_get_ns();
	e->addr = addr;
	e->space = space;
	e->pid = pid;
	e->tid = tid;
	e->kind = kind;
	e->flags = flags;
	e->reserved = 0;
	bpf_ringbuf_submit(e, wakeup(kind));
}

static __always_inline __u64 *word_of(__u32 pid)
{
	return &maybe_chosen[(pid >> 6) & 0xffff];
}

/* forget ends what begin began. Returns whether it is this call that does. */
static __always_inline int forget(__u32 pid)
{
	if (bpf_map_delete_elem(&chosen, &pid))
		return 0;
	__sync_fetch_and_and(word_of(pid), ~(1ull << (pid & 63)));
	__sync_fetch_and_add(&live, -1);
	return 1;
}

/* begin gives pid, which has not been chosen yet, a space, and reports that unless kind is 0. Returns 0 if there is no more room. */
static __always_inline __u32 begin(__u8 kind, __u32 pid, __u32 tid, __u64 parent)
{
	__u32 space = __sync_fetch_and_add(&next_space, 1);

	if (space >= MAX_SPACES || bpf_map_update_elem(&chosen, &pid, &space, BPF_NOEXIST)) {
		__sync_fetch_and_add(&lost_space, 1);
		return 0;
	}
	__sync_fetch_and_or(word_of(pid), 1ull << (pid & 63));
	__sync_fetch_and_add(&live, 1);
	if (kind)
		report(kind, 0, space, pid, tid, parent);
	return space;
}

/* space_of returns the space of a process, 0 if it was not chosen. self: it is the one that runs. */
static __always_inline __u32 space_of(__u32 pid, __u32 tid, int self)
{
	__u32 *space;

	if (!by_cgroup && !(*word_of(pid) >> (pid & 63) & 1))
		return 0;
	space = bpf_map_lookup_elem(&chosen, &pid);
	if (space)
		return *space;
	if (!by_cgroup || !self || bpf_current_task_under_cgroup(&cgroups, 0) != 1)
		return 0;
	__u32 joined = begin(KIND_JOIN, pid, tid, 0);
	if (joined)
		return joined;
	space = bpf_map_lookup_elem(&chosen, &pid); /* another thread was faster */
	return space ? *space : 0;
}

/* is_first reports whether this is the first touch of a page, or the first write after touches that only read. */
static __always_inline int is_first(__u32 space, __u64 addr, int write)
{
	__u64 page = ((__u64)space << SPACE_SHIFT) | (addr >> PAGE_SHIFT);
	__u32 now = write ? SEEN | SEEN_WRITE : SEEN;
	__u32 *seen = bpf_map_lookup_elem(&pages, &page);

	if (!seen) {
		long err = bpf_map_update_elem(&pages, &page, &now, BPF_NOEXIST);

		if (!err)
			return 1;
		if (err != -EEXIST) {
			__sync_fetch_and_add(&lost_space, 1);
			return 0;
		}
		seen = bpf_map_lookup_elem(&pages, &page); /* another thread was faster */
		if (!seen)
			return 0;
	}
	return write && !(__sync_fetch_and_or(seen, SEEN_WRITE) & SEEN_WRITE);
}

static __always_inline int touch(__u32 pid, __u32 tid, __u64 addr, int write, int kernel)
{
	__u32 space = space_of(pid, tid, tid != 0);

	if (!space || addr >> 56) /* addresses of the kernel begin with ones */
		return 0;
	if (is_first(space, addr, write))
		report(KIND_TOUCH, (write ? FLAG_WRITE : 0) | (kernel ? FLAG_KERNEL : 0), space, pid, tid, addr);
	return 0;
}

static __always_inline int touch_by_current(__u64 addr, int write, int kernel)
{
	__u64 id = bpf_get_current_pid_tgid();

	return touch(id >> 32, id, addr, write, kernel);
}

/* TP_PROTO(unsigned long address, struct pt_regs *regs, unsigned long error_code), for both. */
SEC("raw_tracepoint/page_fault_user")
int fault_user(__u64 *ctx)
{
	return touch_by_current(ctx[0], (ctx[2] & X86_PF_WRITE) != 0, 0);
}

SEC("raw_tracepoint/page_fault_kernel")
int fault_kernel(__u64 *ctx)
{
	return touch_by_current(ctx[0], (ctx[2] & X86_PF_WRITE) != 0, 1);
}

/* handle_mm_fault(struct vm_area_struct *vma, unsigned long address, unsigned int flags, struct pt_regs *regs) */
SEC("kprobe/handle_mm_fault")
int fault_kprobe(struct pt_regs *ctx)
{
	__u32 flags = ctx->dx;

	if (flags & FAULT_FLAG_REMOTE)
		return 0; /* the memory of another process, and without BTF no telling which */
	return touch_by_current(ctx->si, (flags & FAULT_FLAG_WRITE) != 0, !(flags & FAULT_FLAG_USER));
}

SEC("fentry/handle_mm_fault")
int fault_fentry(__u64 *ctx)
{
	__u32 flags = ctx[2];
	int write = (flags & FAULT_FLAG_WRITE) != 0;

	if (!(flags & FAULT_FLAG_REMOTE))
		return touch_by_current(ctx[1], write, !(flags & FAULT_FLAG_USER));

	struct vm_area_struct *vma = (void *)ctx[0];
	if (!bpf_core_field_exists(((struct mm_struct *)0)->owner))
		return 0;
	return touch(BPF_CORE_READ(vma, vm_mm, owner, tgid), 0, ctx[1], write, 1);
}

/*
 * Run by user space with a pid, attached to nothing: a word of maybe_chosen belongs to 64 processes, and user space has no way
 * to set a bit of it that does not undo what happens to the others meanwhile. Returns the space; 0 if the process has one
 * already, or if there is no more room.
 */
SEC("raw_tracepoint/none")
int choose(__u64 *ctx)
{
	__u32 pid = ctx[0];

	if (bpf_map_lookup_elem(&chosen, &pid))
		return 0;
	return begin(0, pid, 0, 0);
}

/* Runs in the parent, before the child does. */
SEC("tracepoint/task/task_newtask")
int task_new(void *ctx)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u32 parent = id >> 32, child = 0;
	__u64 flags = 0;
	__u32 *space = bpf_map_lookup_elem(&chosen, &parent);

	if (!space)
		return 0;
	bpf_probe_read_kernel(&flags, sizeof(flags), ctx + newtask_clone_flags);
	bpf_probe_read_kernel(&child, sizeof(child), ctx + newtask_pid);
	if (!(flags & CLONE_THREAD))
		begin(KIND_FORK, child, child, *space);
	return 0;
}

/*
 * sched_prepare_exec comes before the memory is replaced, since 6.10; sched_process_exec when the kernel has already
 * touched the new stack. The one that there is gets attached.
 */
static __always_inline int exec(void)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u32 pid = id >> 32;
	__u32 *space = bpf_map_lookup_elem(&chosen, &pid);

	if (!space)
		return 0;
	__u32 before = *space, after = __sync_fetch_and_add(&next_space, 1);
	if (after >= MAX_SPACES) {
		__sync_fetch_and_add(&lost_space, 1);
		forget(pid);
		return 0;
	}
	*space = after;
	report(KIND_EXEC, 0, after, pid, id, before);
	return 0;
}

SEC("tracepoint/sched/sched_prepare_exec")
int task_exec(void *ctx)
{
	return exec();
}

SEC("tracepoint/sched/sched_process_exit")
int task_exit(void *ctx)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u32 pid = id >> 32, tid = id;
	__u8 group_dead = tid == pid; /* before 6.16 nothing says which thread is the last: the first one shall count */
	__u32 *space = bpf_map_lookup_elem(&chosen, &pid);

	if (!space)
		return 0;
	if (exit_group_dead)
		bpf_probe_read_kernel(&group_dead, sizeof(group_dead), ctx + exit_group_dead);
	if (!group_dead)
		return 0;
	__u32 last = *space;
	if (forget(pid))
		report(KIND_EXIT, 0, last, pid, tid, 0);
	return 0;
}
