/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What tracer.c needs to know of the kernel, and no more.
 *
 * Types and numbers of the system call interface never change. Structures inside the kernel do: those are marked with
 * preserve_access_index, so that the loader looks up where their fields are in the kernel that runs (CO-RE).
 */
#ifndef THAW_TRACER_KERNEL_H
#define THAW_TRACER_KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u32 __wsum;

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_CGROUP_ARRAY = 8,
	BPF_MAP_TYPE_RINGBUF = 27,
};

enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
};

enum {
	BPF_RB_NO_WAKEUP = 1,
	BPF_RB_FORCE_WAKEUP = 2,
};

enum {
	BPF_RB_AVAIL_DATA = 0,
};

/* include/uapi/linux/sched.h */
#define CLONE_THREAD 0x00010000

/* arch/x86/include/asm/trap_pf.h: the error code of a page fault. */
#define X86_PF_WRITE (1 << 1)

/* include/linux/mm_types.h, since 5.13; USER and REMOTE have had their places since 4.9. */
#define FAULT_FLAG_WRITE (1 << 0)
#define FAULT_FLAG_USER (1 << 6)
#define FAULT_FLAG_REMOTE (1 << 7)

#define EEXIST 17

/* The registers that a kprobe is given: struct pt_regs of 64-bit x86, whose layout the system call interface fixes. */
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
	unsigned long orig_ax, ip, cs, flags, sp, ss;
};

struct task_struct {
	__s32 tgid;
} __attribute__((preserve_access_index));

struct mm_struct {
	struct task_struct *owner; /* with CONFIG_MEMCG only */
} __attribute__((preserve_access_index));

struct vm_area_struct {
	struct mm_struct *vm_mm;
} __attribute__((preserve_access_index));

#endif
