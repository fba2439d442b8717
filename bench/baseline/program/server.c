// SPDX-License-Identifier: Apache-2.0
/*
 * The least that a userfaultfd server can be, to measure others against: a thread for
 * each userfaultfd copies one page for each fault, and threads beside them copy
 * everything in bulk when they are told to. It knows no policy, and no events but to
 * read them: memory that is moved or dropped gets wrong content, or none.
 *
 * Page i behind BASE holds, with k = i / (RUN + GAP) and o = i % (RUN + GAP), page
 * k * RUN + o of the source if o < RUN, else zeros. The source repeats itself.
 *
 *	server WAIT BASE PAGES RUN GAP BULK UFFDS
 *
 * WAIT is poll, spin, or example (poll, and read one message at a time, as the
 * examples of the manual page and of virtual machine monitors do). Descriptor 3 is the
 * source, a file in memory; the userfaultfds follow it.
 *
 * It writes a line to standard output when it is ready. A line on standard input
 * starts the bulk copies; at their end it writes a line: nanoseconds, nanoseconds of
 * CPU, bytes, and the bytes copied after each millisecond. It ends with its input.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SOURCE 3
#define PAGE 4096ul
#define BATCH 16
#define THREADS 64   /* of one process, at most */
#define CALL 128ul   /* pages: 512 KiB, from where on one call is as fast as it gets */
#define SAMPLES 4096 /* of the progress, one a millisecond */

enum wait { POLL, SPIN, EXAMPLE };

static enum wait waiting;
static uint64_t base, pages, run, gap;
static char *source;
static uint64_t source_pages;
static int first_uffd = SOURCE + 1;

static atomic_ullong next, copied; /* of the bulk copies: pages taken, bytes done */
static atomic_int finished;

static void die(const char *what)
{
	fprintf(stderr, "server: %s: %s\n", what, strerror(errno));
	exit(70);
}

static uint64_t nanoseconds(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* Installs pages of the source; returns how many are settled, 0 for "again". */
static uint64_t copy(int uffd, uint64_t dst, uint64_t page, uint64_t n)
{
	struct uffdio_copy c = { .dst = dst, .len = n * PAGE };
	page %= source_pages;
	if (page + n > source_pages)
		c.len = (source_pages - page) * PAGE;
	c.src = (uintptr_t)source + page * PAGE;
	if (!ioctl(uffd, UFFDIO_COPY, &c))
		return c.len / PAGE;
	if (c.copy > 0)
		return c.copy / PAGE;
	/* While an event is pending some kernels leave c.copy as it was: errno is what counts. */
	switch (errno) {
	case EEXIST:
		ioctl(uffd, UFFDIO_WAKE, &(struct uffdio_range){ dst, PAGE });
		return 1;
	case EAGAIN:
		return 0;
	case ENOENT:
		return 1; /* not mapped any more */
	case ESRCH:
		return n; /* the process is gone */
	}
	die("UFFDIO_COPY");
	return 0;
}

/* Returns 0 for "again". */
static uint64_t zero(int uffd, uint64_t dst)
{
	struct uffdio_zeropage z = { .range = { dst, PAGE } };
	if (!ioctl(uffd, UFFDIO_ZEROPAGE, &z))
		return 1;
	if (errno == EEXIST)
		ioctl(uffd, UFFDIO_WAKE, &z.range);
	return errno != EAGAIN;
}

/* Returns 0 for "again". */
static uint64_t fault(int uffd, uint64_t addr)
{
	uint64_t dst = addr & ~(PAGE - 1), i = (dst - base) / PAGE, o = i % (run + gap);
	if (o < run)
		return copy(uffd, dst, i / (run + gap) * run + o, 1);
	return zero(uffd, dst);
}

/* Serves one userfaultfd until it hangs up. */
static void *serve(void *arg)
{
	int uffd = (intptr_t)arg;
	size_t batch = waiting == EXAMPLE ? 1 : BATCH;
	struct uffd_msg msg[BATCH];
	/* Faults that have to wait until an event has been read, which only this thread does. */
	uint64_t again[THREADS];
	size_t deferred = 0;
	for (;;) {
		struct pollfd p = { uffd, POLLIN, 0 };
		if (waiting != SPIN && poll(&p, 1, deferred ? 0 : -1) < 0 && errno != EINTR)
			die("poll");
		for (size_t i = deferred; i-- > 0;)
			if (fault(uffd, again[i]))
				again[i] = again[--deferred];
		ssize_t n = read(uffd, msg, batch * sizeof(*msg));
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n <= 0)
			return NULL;
		for (size_t i = 0; i < n / sizeof(*msg); i++)
			if (msg[i].event == UFFD_EVENT_PAGEFAULT) {
				uint64_t addr = msg[i].arg.pagefault.address;
				if (!fault(uffd, addr) && deferred < THREADS)
					again[deferred++] = addr;
			} else if (msg[i].event == UFFD_EVENT_FORK)
				close(msg[i].arg.fork.ufd);
	}
}

/* Copies runs until none is left. A thread takes about 1 MiB at a time. */
static void *bulk(void *unused)
{
	uint64_t period = run + gap, step = (256 + period - 1) / period * period;
	for (;;) {
		uint64_t i = atomic_fetch_add(&next, step), end = i + step < pages ? i + step : pages;
		if (i >= pages)
			return unused;
		while (i < end) {
			uint64_t o = i % period;
			if (o >= run) {
				i += period - o;
				continue;
			}
			uint64_t left = gap ? run - o : end - i;
			uint64_t n = left < CALL ? left : CALL;
			n = n < end - i ? n : end - i;
			uint64_t done = copy(first_uffd, base + i * PAGE, i / period * run + o, n);
			if (!done)
				sched_yield();
			atomic_fetch_add_explicit(&copied, done * PAGE, memory_order_relaxed);
			i += done;
		}
	}
}

static uint64_t sample[SAMPLES];
static int samples;

static void *watch(void *unused)
{
	while (!finished && samples < SAMPLES) {
		nanosleep(&(struct timespec){ 0, 1000000 }, NULL);
		sample[samples++] = copied;
	}
	return unused;
}

static void fill(int threads)
{
	pthread_t thread[threads], watcher;
	pthread_create(&watcher, NULL, watch, NULL);
	uint64_t cpu = nanoseconds(CLOCK_PROCESS_CPUTIME_ID), start = nanoseconds(CLOCK_MONOTONIC);
	for (int i = 0; i < threads; i++)
		if ((errno = pthread_create(&thread[i], NULL, bulk, NULL)))
			die("pthread_create");
	for (int i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	uint64_t end = nanoseconds(CLOCK_MONOTONIC), used = nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	finished = 1;
	pthread_join(watcher, NULL);
	printf("%llu %llu %llu", (unsigned long long)(end - start), (unsigned long long)used,
	       (unsigned long long)copied);
	for (int i = 0; i < samples; i++)
		printf(" %llu", (unsigned long long)sample[i]);
	printf("\n");
}

int main(int argc, char **argv)
{
	struct stat st;
	if (argc != 8)
		return 64;
	waiting = !strcmp(argv[1], "spin") ? SPIN : !strcmp(argv[1], "example") ? EXAMPLE : POLL;
	base = strtoull(argv[2], NULL, 0);
	pages = strtoull(argv[3], NULL, 0);
	run = strtoull(argv[4], NULL, 0);
	gap = strtoull(argv[5], NULL, 0);
	int threads = atoi(argv[6]), uffds = atoi(argv[7]);

	if (fstat(SOURCE, &st))
		die("source");
	source = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, SOURCE, 0);
	if (source == MAP_FAILED)
		die("map the source");
	source_pages = st.st_size / PAGE;

	pthread_attr_t attr;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 64 << 10);
	for (int i = 0; i < uffds; i++) {
		pthread_t thread;
		int uffd = first_uffd + i;
		/* What was inherited blocks: the pipe of package os clears the flag. */
		fcntl(uffd, F_SETFL, fcntl(uffd, F_GETFL) | O_NONBLOCK);
		if ((errno = pthread_create(&thread, &attr, serve, (void *)(intptr_t)uffd)))
			die("pthread_create");
	}
	setvbuf(stdout, NULL, _IOFBF, 1 << 16);
	printf("ready\n");
	fflush(stdout);
	for (int c; (c = getchar()) != EOF;)
		if (c == '\n') {
			fill(threads);
			fflush(stdout);
		}
	return 0;
}
