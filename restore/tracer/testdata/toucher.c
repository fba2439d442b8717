// Touches fresh pages: for each number n on a line of standard input it maps n pages where none of its pages has been
// before, writes to each once, and says how many nanoseconds the writing took.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define PAGE 4096ul

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

int main(void)
{
	unsigned long n, next = 0x100000000000;

	while (scanf("%lu", &n) == 1) {
		void *wanted = (void *)next;
		volatile char *p = mmap(wanted, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

		if (p != wanted) {
			perror("mmap");
			return 1;
		}
		/* A page at a time, whatever the system's setting. */
		madvise(wanted, n * PAGE, MADV_NOHUGEPAGE);
		uint64_t start = now();
		for (unsigned long i = 0; i < n; i++)
			p[i * PAGE] = 1;
		printf("%llu\n", (unsigned long long)(now() - start));
		fflush(stdout);
		munmap(wanted, n * PAGE);
		next += n * PAGE;
	}
	return 0;
}
