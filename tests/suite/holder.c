/* Holds a file as a virtual machine holds a region. For each line on standard input it does one
 * thing and answers "ok": open PATH; map OFFSET LENGTH; close; many COUNT; files COUNT; quit. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void check(int is_good, const char *what)
{
	if (!is_good) {
		perror(what);
		exit(1);
	}
}

int main(void)
{
	char line[4096], path[4096];
	unsigned long long offset, length;
	int fd = -1;

	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "open %4095s", path) == 1) {
			fd = open(path, O_RDWR);
			check(fd >= 0, "open");
		} else if (sscanf(line, "map %llu %llu", &offset, &length) == 2) {
			/* Private: a shared mapping of the stand-in device is another file's. */
			void *map = mmap(NULL, length, PROT_READ, MAP_PRIVATE, fd, (off_t)offset);
			check(map != MAP_FAILED, "mmap");
		} else if (sscanf(line, "many %llu", &length) == 1) {
			/* Protections take turns, so that no two of them are merged. */
			for (unsigned long long i = 0; i < length; i++) {
				void *map = mmap(NULL, 4096, i % 2 ? PROT_READ : PROT_NONE,
						 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
				check(map != MAP_FAILED, "mmap");
			}
		} else if (sscanf(line, "files %llu", &length) == 1) {
			for (unsigned long long i = 0; i < length; i++)
				check(open("/dev/null", O_RDONLY) >= 0, "open /dev/null");
		} else if (strncmp(line, "close", 5) == 0) {
			check(close(fd) == 0, "close");
		} else {
			return 0;
		}
		puts("ok");
		fflush(stdout);
	}
	return 0;
}
