/* Holds a file as a virtual machine holds a region. For each line on standard input it does one
 * thing and answers "ok": open PATH; map OFFSET LENGTH; share OFFSET LENGTH; close; many COUNT; files COUNT; path PATH;
 * relay USEC (hands itself to a child again and again); toggle (changes what it has mapped without
 * end); leader (its first thread ends). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
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

static void *last;

static void answer(void)
{
	puts("ok");
	fflush(stdout);
}

/* One process of the chain at a time, for at least twenty seconds unless it is killed. */
static void relay(unsigned int pause)
{
	for (unsigned int gone = 0; gone < 20000000; gone += pause) {
		usleep(pause);
		if (fork() > 0)
			_exit(0);
	}
}

static void *toggle(void *unused)
{
	for (;;) {
		mprotect(last, 4096, PROT_NONE);
		mprotect(last, 4096, PROT_READ);
	}
	return unused;
}

static void *wait_forever(void *unused)
{
	pause();
	return unused;
}

int main(void)
{
	char line[4096], path[4096];
	unsigned long long offset, length;
	pthread_t thread;
	int fd = -1;

	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "open %4095s", path) == 1) {
			fd = open(path, O_RDWR);
			check(fd >= 0, "open");
		} else if (sscanf(line, "map %llu %llu", &offset, &length) == 2) {
			/* Private: a shared mapping of the stand-in device is another file's. */
			void *map = mmap(NULL, length, PROT_READ, MAP_PRIVATE, fd, (off_t)offset);
			check(map != MAP_FAILED, "mmap");
			last = map;
		} else if (sscanf(line, "share %llu %llu", &offset, &length) == 2) {
			/* As a virtual machine does with a real device. */
			check(mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
				   (off_t)offset) != MAP_FAILED, "mmap");
		} else if (sscanf(line, "path %4095s", path) == 1) {
			check(open(path, O_PATH) >= 0, "open");
		} else if (sscanf(line, "relay %llu", &length) == 1) {
			answer();
			relay((unsigned int)length);
			return 0;
		} else if (strncmp(line, "toggle", 6) == 0) {
			check(!pthread_create(&thread, NULL, toggle, NULL), "pthread_create");
		} else if (strncmp(line, "leader", 6) == 0) {
			check(!pthread_create(&thread, NULL, wait_forever, NULL), "pthread_create");
			answer();
			pthread_exit(NULL);
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
		answer();
	}
	return 0;
}
