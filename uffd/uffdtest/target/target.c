// SPDX-License-Identifier: Apache-2.0
/*
 * A process for others to fault in: it does to its memory what it is told over a
 * socket, and answers when it is done. Policy, and the knowledge of what memory
 * should hold, are with the test at the other end.
 *
 * The main thread reads requests and never touches the memory under test. A pool
 * of workers executes them, because a request that faults sleeps until the test's
 * server resolves the fault. Answers carry the number of their request and come
 * in any order.
 *
 * fork must work while other workers sleep in faults. So nothing here calls malloc
 * or takes a lock of libc's once the pool stands: the child would find them held
 * by threads that it does not have. It forks without libc's handlers and builds
 * a new pool.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CHANNEL 3 /* the socket to the test, inherited */
#define PAGE 4096ul
#define WORKERS 32 /* unless TARGET_WORKERS in the environment says otherwise */
#define QUEUE 1024 /* more requests than this wait in the socket */

/* The requests. The numbers are those of the op constants in wire.go. */
enum {
	OP_MAP = 1, OP_MAP_MEMFD, OP_MUNMAP, OP_MREMAP, OP_MADVISE, OP_MPROTECT,
	OP_OPEN, OP_DROP, OP_REGISTER, OP_UNREGISTER,
	OP_READ, OP_WRITE, OP_SUMS, OP_TOUCH, OP_PIPE,
	OP_FORK, OP_EXEC, OP_EXIT, OP_DIAL, OP_SEND, OP_HANGUP,
	OP_MAP_EACH, OP_STORM, OP_CALM,
};

struct request {
	uint64_t id;
	uint32_t op;
	uint32_t payload_len;
	uint64_t arg[6];
};

struct reply {
	uint64_t id;
	uint32_t err;	/* errno, 0 if it went well */
	uint32_t sig;	/* the signal that ended it, 0 if none did */
	int32_t sig_code;
	uint32_t fds;	/* descriptors that come along */
	uint64_t val[2]; /* results; for a signal, val[0] is the address */
	uint64_t payload_len;
};

_Static_assert(sizeof(struct request) == 64, "the test packs 64 bytes");
_Static_assert(sizeof(struct reply) == 48, "the test unpacks 48 bytes");

/* The payload of OP_TOUCH. */
struct walk {
	uint64_t addr, pages, stride; /* stride in bytes, from page to page */
	uint64_t part, parts;	      /* this thread's share of the steps */
	uint64_t seed, flags, start;  /* start: not before, in CLOCK_MONOTONIC */
};

enum { WALK_WRITE = 1, WALK_ASCENDING = 2 };

/* What one access of OP_TOUCH saw. */
struct touched {
	uint64_t page, nanoseconds, word, faults;
};

/* What OP_STORM does. The numbers are those of the Storm constants in commands.go. */
enum { STORM_FORK, STORM_MREMAP, STORM_MUNMAP, STORM_DONTNEED };

struct job {
	struct request req;
	char *payload;
	int fd; /* that came along, or -1 */
};

/* The answer that a worker builds. */
struct answer {
	struct reply rep;
	char *payload; /* from buffer(), or NULL */
	int fd;	       /* sent along if not -1 */
};

static struct {
	pthread_mutex_t mu;
	pthread_cond_t filled, emptied;
	struct job job[QUEUE];
	unsigned int head, tail; /* head - tail jobs are queued */
} queue;

static pthread_mutex_t sending;
static int uffd = -1;
static volatile int calm; /* storms end */
static __thread sigjmp_buf on_signal;
static __thread volatile sig_atomic_t guarded;
static __thread volatile siginfo_t caught;

static void serve(void) __attribute__((noreturn));

static void die(const char *what)
{
	dprintf(2, "target %d: %s: %s\n", (int)getpid(), what, strerror(errno));
	_exit(70);
}

/* A buffer outside of malloc. */
static char *buffer(size_t len)
{
	char *p = mmap(NULL, len ? len : 1, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (p == MAP_FAILED)
		die("buffer");
	return p;
}

static void release(char *p, size_t len)
{
	if (p)
		munmap(p, len ? len : 1);
}

/* An access to poisoned or unmapped memory ends the request, not the process. */
static void handler(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	if (!guarded)
		_exit(71);
	guarded = 0;
	*(siginfo_t *)&caught = *info;
	siglongjmp(on_signal, 1);
}

/* GUARD(answer, statement): runs it; a signal goes into the answer. */
#define GUARD(a, statement)                                            \
	do {                                                           \
		if (sigsetjmp(on_signal, 1)) {                         \
			(a)->rep.sig = caught.si_signo;                \
			(a)->rep.sig_code = caught.si_code;            \
			(a)->rep.val[0] = (uintptr_t)caught.si_addr;   \
		} else {                                               \
			guarded = 1;                                   \
			statement;                                     \
			guarded = 0;                                   \
		}                                                      \
	} while (0)

/* Sends all of it; the descriptors go with the first byte. */
static int send_all(int sock, struct iovec *iov, int iovcnt, const int *fds, int nfds)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(8 * sizeof(int))];
	} control;
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = iovcnt };

	if (nfds) {
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
	}
	while (msg.msg_iovlen) {
		ssize_t n = sendmsg(sock, &msg, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno;
		msg.msg_control = NULL;
		msg.msg_controllen = 0;
		while (msg.msg_iovlen && (size_t)n >= msg.msg_iov->iov_len) {
			n -= msg.msg_iov->iov_len;
			msg.msg_iov++;
			msg.msg_iovlen--;
		}
		if (msg.msg_iovlen) {
			msg.msg_iov->iov_base = (char *)msg.msg_iov->iov_base + n;
			msg.msg_iov->iov_len -= n;
		}
	}
	return 0;
}

static void reply(struct answer *a)
{
	struct iovec iov[2] = {
		{ &a->rep, sizeof(a->rep) },
		{ a->payload, a->rep.payload_len },
	};
	a->rep.fds = a->fd >= 0;
	pthread_mutex_lock(&sending);
	int err = send_all(CHANNEL, iov, a->payload ? 2 : 1, &a->fd, a->fd >= 0);
	pthread_mutex_unlock(&sending);
	if (err)
		_exit(0); /* the test is gone */
}

/* Receives exactly len bytes, and at most one descriptor. */
static void receive(void *p, size_t len, int *fd)
{
	while (len) {
		union {
			struct cmsghdr align;
			char space[CMSG_SPACE(sizeof(int))];
		} control;
		struct iovec iov = { p, len };
		struct msghdr msg = {
			.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = &control,
			.msg_controllen = sizeof(control),
		};
		ssize_t n = recvmsg(CHANNEL, &msg, MSG_CMSG_CLOEXEC);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			_exit(0); /* the test is gone */
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		if (c && c->cmsg_type == SCM_RIGHTS)
			memcpy(fd, CMSG_DATA(c), sizeof(int));
		p = (char *)p + n;
		len -= n;
	}
}

static uint32_t failed(int bad)
{
	return bad ? errno : 0;
}

static int open_uffd(uint64_t flags)
{
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);
	if (fd >= 0)
		return fd;
	int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (device < 0)
		return -1;
	fd = ioctl(device, _IO(0xAA, 0x00), O_CLOEXEC | O_NONBLOCK | flags);
	close(device);
	return fd;
}

/* arg: features, flags, whether to negotiate. Keeps the descriptor and sends it. */
static void do_open(const struct job *j, struct answer *a)
{
	struct uffdio_api api = { .api = UFFD_API, .features = j->req.arg[0] };
	int fd = open_uffd(j->req.arg[1]);
	if (fd < 0 || (j->req.arg[2] && ioctl(fd, UFFDIO_API, &api))) {
		a->rep.err = errno;
		if (fd >= 0)
			close(fd);
		return;
	}
	if (uffd >= 0)
		close(uffd);
	uffd = fd;
	a->fd = fd;
}

/* arg: address, length, mode. */
static void do_register(const struct job *j, struct answer *a)
{
	struct uffdio_register r = {
		.range = { j->req.arg[0], j->req.arg[1] },
		.mode = j->req.arg[2],
	};
	a->rep.err = failed(ioctl(uffd, UFFDIO_REGISTER, &r));
	a->rep.val[0] = r.ioctls;
}

/* arg: address hint, length, protection, flags. */
static void do_map(const struct job *j, struct answer *a, int fd)
{
	const uint64_t *arg = j->req.arg;
	void *p = mmap((void *)arg[0], arg[1], arg[2], arg[3], fd, 0);
	a->rep.err = failed(p == MAP_FAILED);
	a->rep.val[0] = (uintptr_t)p;
}

/* As do_map, of a new file of that length, which it sends. */
static void do_map_memfd(const struct job *j, struct answer *a)
{
	int fd = memfd_create("uffdtest", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, j->req.arg[1])) {
		a->rep.err = errno;
		return;
	}
	do_map(j, a, fd);
	a->fd = fd;
}

/* arg: address, length. The bytes. */
static void do_read(const struct job *j, struct answer *a)
{
	a->payload = buffer(j->req.arg[1]);
	a->rep.payload_len = j->req.arg[1];
	GUARD(a, memcpy(a->payload, (void *)j->req.arg[0], j->req.arg[1]));
}

/* FNV-1a over the 64-bit words of a page; Sum in Go is the same. */
static uint64_t sum_page(const volatile uint64_t *word)
{
	uint64_t h = 0xcbf29ce484222325;
	for (size_t i = 0; i < PAGE / sizeof(*word); i++)
		h = (h ^ word[i]) * 0x100000001b3;
	return h;
}

static void sum_pages(const char *p, uint64_t pages, uint64_t *out)
{
	for (uint64_t i = 0; i < pages; i++)
		out[i] = sum_page((const uint64_t *)(p + i * PAGE));
}

/* arg: address, pages. A sum for each. */
static void do_sums(const struct job *j, struct answer *a)
{
	a->rep.payload_len = j->req.arg[1] * sizeof(uint64_t);
	a->payload = buffer(a->rep.payload_len);
	GUARD(a, sum_pages((char *)j->req.arg[0], j->req.arg[1], (uint64_t *)a->payload));
}

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void sleep_until(uint64_t at)
{
	struct timespec t = { at / 1000000000, at % 1000000000 };
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

/* The page faults of this thread so far; those that userfaultfd held up are major ones. */
static uint64_t faults(void)
{
	struct rusage r;
	getrusage(RUSAGE_THREAD, &r);
	return r.ru_minflt + r.ru_majflt;
}

/*
 * Touches the steps of a walk over all pages that are congruent to part modulo
 * parts. In random order, x -> ax+c visits all numbers below a power of two exactly
 * once if c is odd and a is 1 modulo 4; those beyond the last page are passed over.
 */
static uint64_t touch(const struct walk *w, struct touched *out)
{
	uint64_t mask = 1, step = 0, n = 0, x;
	uint64_t a = (w->seed << 2 & 0xfffffffc) + 5, c = w->seed >> 16 | 1;
	while (mask < w->pages)
		mask <<= 1;
	mask--;
	if (w->flags & WALK_ASCENDING)
		a = c = 1;
	x = w->flags & WALK_ASCENDING ? mask : w->seed & mask;
	if (w->start)
		sleep_until(w->start);
	for (uint64_t i = 0; i <= mask; i++) {
		x = (x * a + c) & mask;
		if (x >= w->pages || step++ % w->parts != w->part)
			continue;
		volatile uint64_t *p = (uint64_t *)(w->addr + x * w->stride);
		uint64_t before = faults(), start = now();
		if (w->flags & WALK_WRITE)
			*p = x + w->seed;
		uint64_t word = *p, end = now();
		out[n++] = (struct touched){ x, end - start, word, faults() - before };
	}
	return n;
}

/* A struct walk comes as payload. A struct touched for each page. */
static void do_touch(const struct job *j, struct answer *a)
{
	const struct walk *w = (const struct walk *)j->payload;
	if (j->req.payload_len != sizeof(*w) || !w->parts) {
		a->rep.err = EINVAL;
		return;
	}
	size_t len = (w->pages / w->parts + 1) * sizeof(struct touched);
	a->payload = buffer(len);
	GUARD(a, a->rep.payload_len = touch(w, (struct touched *)a->payload) * sizeof(struct touched));
	a->rep.val[1] = len;
}

/* arg: address, length, stride, how many. Maps private anonymous memory that often. */
static void do_map_each(const struct job *j, struct answer *a)
{
	const uint64_t *arg = j->req.arg;
	for (uint64_t i = 0; i < arg[3] && !a->rep.err; i++)
		a->rep.err = failed(mmap((void *)(arg[0] + i * arg[2]), arg[1], PROT_READ | PROT_WRITE,
					 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED);
}

/* One gust of a storm: the kind, and the range that it is about. */
static int gust(uint64_t kind, uint64_t addr, uint64_t len, uint64_t elsewhere)
{
	switch (kind) {
	case STORM_FORK: {
		pid_t pid = _Fork();
		if (pid == 0)
			_exit(0);
		return pid < 0;
	}
	case STORM_MREMAP:
		return mremap((void *)addr, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)elsewhere) == MAP_FAILED ||
		       mremap((void *)elsewhere, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)addr) == MAP_FAILED;
	case STORM_MUNMAP:
		return munmap((void *)addr, len);
	case STORM_DONTNEED:
		return madvise((void *)addr, len, MADV_DONTNEED);
	}
	errno = EINVAL;
	return -1;
}

/* arg: kind, address, length of a part, parts, most gusts, another address. A time for each gust. */
static void do_storm(const struct job *j, struct answer *a)
{
	const uint64_t *arg = j->req.arg;
	uint64_t n = 0, *out;
	a->rep.val[1] = arg[4] * sizeof(*out);
	a->payload = buffer(a->rep.val[1]);
	out = (uint64_t *)a->payload;
	while (n < arg[4] && !calm) {
		uint64_t start = now();
		if (gust(arg[0], arg[1] + n % arg[3] * arg[2], arg[2], arg[5])) {
			a->rep.err = errno;
			return;
		}
		out[n++] = now() - start;
	}
	a->rep.payload_len = n * sizeof(*out);
}

/* arg: address. Has the kernel read a byte of memory; its own errno if it cannot. */
static void do_pipe(const struct job *j, struct answer *a)
{
	int fd[2];
	if (pipe2(fd, O_CLOEXEC)) {
		a->rep.err = errno;
		return;
	}
	unsigned char byte = 0;
	if (write(fd[1], (void *)j->req.arg[0], 1) < 0 || read(fd[0], &byte, 1) < 0)
		a->rep.err = errno;
	a->rep.val[0] = byte;
	close(fd[0]);
	close(fd[1]);
}

/* The child's channel comes along. Answers with the child's pid and a pidfd. */
static void do_fork(const struct job *j, struct answer *a)
{
	pid_t pid = _Fork();
	if (pid == 0) {
		if (dup2(j->fd, CHANNEL) < 0)
			die("dup2");
		close_range(CHANNEL + 1, ~0u, 0);
		uffd = -1;
		serve();
	}
	if (pid > 0)
		a->fd = syscall(SYS_pidfd_open, pid, 0);
	a->rep.err = failed(a->fd < 0);
	a->rep.val[0] = pid;
}

/* The new program answers in its stead. */
static void do_exec(const struct job *j, struct answer *a)
{
	char id[24];
	snprintf(id, sizeof(id), "%llu", (unsigned long long)j->req.id);
	execl("/proc/self/exe", "target", id, (char *)NULL);
	a->rep.err = errno;
}

/* The path comes as payload. Answers with a handle for the others. */
static void do_dial(const struct job *j, struct answer *a)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	if (j->req.payload_len >= sizeof(addr.sun_path)) {
		a->rep.err = ENAMETOOLONG;
		return;
	}
	memcpy(addr.sun_path, j->payload, j->req.payload_len);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	a->rep.err = failed(fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)));
	a->rep.val[0] = fd;
}

/* arg: handle, copies. Sends the payload, and the userfaultfd that many times. */
static void do_send(const struct job *j, struct answer *a)
{
	struct iovec iov = { j->payload, j->req.payload_len };
	int fds[8], n = j->req.arg[1];
	if (n > 8) {
		a->rep.err = EINVAL;
		return;
	}
	for (int i = 0; i < n; i++)
		fds[i] = uffd;
	a->rep.err = send_all(j->req.arg[0], &iov, 1, fds, n);
}

static void execute(const struct job *j, struct answer *a)
{
	const uint64_t *arg = j->req.arg;

	switch (j->req.op) {
	case OP_MAP:
		do_map(j, a, -1);
		break;
	case OP_MAP_MEMFD:
		do_map_memfd(j, a);
		break;
	case OP_MUNMAP:
		a->rep.err = failed(munmap((void *)arg[0], arg[1]));
		break;
	case OP_MREMAP:
		a->rep.val[0] = syscall(SYS_mremap, arg[0], arg[1], arg[2], arg[3], arg[4]);
		a->rep.err = failed(a->rep.val[0] == -1ull);
		break;
	case OP_MADVISE:
		a->rep.err = failed(madvise((void *)arg[0], arg[1], arg[2]));
		break;
	case OP_MPROTECT:
		a->rep.err = failed(mprotect((void *)arg[0], arg[1], arg[2]));
		break;
	case OP_OPEN:
		do_open(j, a);
		break;
	case OP_DROP:
		a->rep.err = failed(close(uffd));
		uffd = -1;
		break;
	case OP_REGISTER:
		do_register(j, a);
		break;
	case OP_UNREGISTER:
		a->rep.err = failed(ioctl(uffd, UFFDIO_UNREGISTER,
					  &(struct uffdio_range){ arg[0], arg[1] }));
		break;
	case OP_READ:
		do_read(j, a);
		break;
	case OP_WRITE:
		GUARD(a, memcpy((void *)arg[0], j->payload, j->req.payload_len));
		break;
	case OP_SUMS:
		do_sums(j, a);
		break;
	case OP_TOUCH:
		do_touch(j, a);
		break;
	case OP_MAP_EACH:
		do_map_each(j, a);
		break;
	case OP_STORM:
		do_storm(j, a);
		break;
	case OP_CALM:
		calm = 1;
		break;
	case OP_PIPE:
		do_pipe(j, a);
		break;
	case OP_FORK:
		do_fork(j, a);
		break;
	case OP_EXEC:
		do_exec(j, a);
		break;
	case OP_EXIT:
		_exit(arg[0]);
	case OP_DIAL:
		do_dial(j, a);
		break;
	case OP_SEND:
		do_send(j, a);
		break;
	case OP_HANGUP:
		a->rep.err = failed(close(arg[0]));
		break;
	default:
		a->rep.err = ENOSYS;
	}
}

/* Whether the descriptor of the answer was opened for the answer only. */
static int passing(uint32_t op)
{
	return op == OP_MAP_MEMFD || op == OP_FORK;
}

/* Whether the buffer of the answer may be larger than its payload: then val[1] is its size. */
static int oversized(uint32_t op)
{
	return op == OP_TOUCH || op == OP_STORM;
}

static void *worker(void *unused)
{
	for (;;) {
		pthread_mutex_lock(&queue.mu);
		while (queue.head == queue.tail)
			pthread_cond_wait(&queue.filled, &queue.mu);
		struct job j = queue.job[queue.tail++ % QUEUE];
		pthread_cond_signal(&queue.emptied);
		pthread_mutex_unlock(&queue.mu);

		struct answer a = { .rep = { .id = j.req.id }, .fd = -1 };
		execute(&j, &a);
		size_t len = oversized(j.req.op) ? a.rep.val[1] : a.rep.payload_len;
		if (a.rep.sig)
			a.rep.payload_len = 0;
		reply(&a);
		release(a.payload, len);
		release(j.payload, j.req.payload_len);
		if (a.fd >= 0 && passing(j.req.op))
			close(a.fd);
		if (j.fd >= 0)
			close(j.fd);
	}
	return unused;
}

/* Starts with an empty queue and no lock held, in a child too. */
static void serve(void)
{
	const char *workers = getenv("TARGET_WORKERS");
	pthread_attr_t attr;
	pthread_t thread;

	pthread_mutex_init(&queue.mu, NULL);
	pthread_cond_init(&queue.filled, NULL);
	pthread_cond_init(&queue.emptied, NULL);
	pthread_mutex_init(&sending, NULL);
	queue.head = queue.tail = 0;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 << 10);
	for (int i = workers ? atoi(workers) : WORKERS; i > 0; i--)
		if ((errno = pthread_create(&thread, &attr, worker, NULL)))
			die("pthread_create");

	for (;;) {
		struct job j = { .fd = -1 };
		receive(&j.req, sizeof(j.req), &j.fd);
		if (j.req.payload_len) {
			j.payload = buffer(j.req.payload_len);
			receive(j.payload, j.req.payload_len, &j.fd);
		}
		pthread_mutex_lock(&queue.mu);
		while (queue.head - queue.tail == QUEUE)
			pthread_cond_wait(&queue.emptied, &queue.mu);
		queue.job[queue.head++ % QUEUE] = j;
		pthread_cond_signal(&queue.filled);
		pthread_mutex_unlock(&queue.mu);
	}
}

/* argv[1], if there, is the request that executed this program. */
int main(int argc, char **argv)
{
	struct sigaction act = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };

	sigaction(SIGBUS, &act, NULL);
	sigaction(SIGSEGV, &act, NULL);
	signal(SIGCHLD, SIG_IGN); /* children reap themselves */
	if (argc > 1) {
		struct answer a = { .rep = { .id = strtoull(argv[1], NULL, 10) }, .fd = -1 };
		reply(&a);
	}
	serve();
}
