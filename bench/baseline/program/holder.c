// SPDX-License-Identifier: Apache-2.0
/*
 * Holds memory with the content of a file, to be dumped by CRIU.
 *
 *	holder BASE PAGES
 *
 * Descriptor 3 is the file. Closes standard output when the memory is filled, and sleeps.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 3)
		return 64;
	char *base = (char *)strtoull(argv[1], NULL, 0);
	size_t len = strtoull(argv[2], NULL, 0) * 4096;
	char *p = mmap(base, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	for (size_t at = 0; p != MAP_FAILED && at < len;) {
		ssize_t n = pread(3, p + at, len - at, at);
		if (n <= 0)
			p = MAP_FAILED;
		else
			at += n;
	}
	if (p == MAP_FAILED) {
		fprintf(stderr, "holder: %s\n", strerror(errno));
		return 70;
	}
	close(3);
	int null = open("/dev/null", O_RDWR);
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	close(null);
	for (;;)
		pause();
}
