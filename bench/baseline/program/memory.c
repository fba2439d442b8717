// SPDX-License-Identifier: Apache-2.0
/*
 * What memory costs without userfaultfd: reads a file into fresh anonymous memory with
 * read(2), as an eager restore does, or maps it privately and touches each page.
 *
 *	memory read|map BYTES
 *
 * Descriptor 3 is the file. Writes a line: nanoseconds, nanoseconds of CPU, bytes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define FILE_FD 3
#define PAGE 4096ul
#define CALL (1ul << 20)

static void die(const char *what)
{
	fprintf(stderr, "memory: %s: %s\n", what, strerror(errno));
	exit(70);
}

static uint64_t nanoseconds(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void read_all(size_t len)
{
	char *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		die("mmap");
	madvise(p, len, MADV_NOHUGEPAGE); /* so that it is measured in the pages of userfaultfd */
	for (size_t at = 0; at < len;) {
		ssize_t n = pread(FILE_FD, p + at, len - at < CALL ? len - at : CALL, at);
		if (n <= 0)
			die("read");
		at += n;
	}
}

static void map_all(size_t len)
{
	volatile char *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE, FILE_FD, 0);
	if (p == MAP_FAILED)
		die("mmap");
	for (size_t at = 0; at < len; at += PAGE)
		(void)p[at];
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 64;
	size_t len = strtoull(argv[2], NULL, 0);
	uint64_t cpu = nanoseconds(CLOCK_PROCESS_CPUTIME_ID), start = nanoseconds(CLOCK_MONOTONIC);
	if (!strcmp(argv[1], "read"))
		read_all(len);
	else
		map_all(len);
	printf("%llu %llu %zu\n", (unsigned long long)(nanoseconds(CLOCK_MONOTONIC) - start),
	       (unsigned long long)(nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - cpu), len);
	return 0;
}
