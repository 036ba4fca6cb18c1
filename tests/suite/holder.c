/* Holds a file as a virtual machine holds a region. For each line on standard input it does one
 * thing and answers "ok": open PATH; map OFFSET LENGTH; share OFFSET LENGTH; private OFFSET LENGTH;
 * close; many COUNT; files COUNT; path PATH; relay USEC (hands itself to a child again and again);
 * toggle (changes what it has mapped without end); leader (its first thread ends); fork (a child
 * keeps everything until this process ends); socket PATH (a mailbox for files); send PATH (the file,
 * to a mailbox); receive (the next file in the mailbox, instead of the current one). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
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

/* A process that has the same files and mappings, and outlives its parent only for a moment. */
static pid_t start_child(void)
{
	pid_t parent = getpid(), child = fork();

	check(child >= 0, "fork");
	if (child == 0) {
		check(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0, "prctl");
		if (getppid() == parent)
			pause();
		_exit(0);
	}
	return child;
}

static struct sockaddr_un address(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	check(strlen(path) < sizeof(address.sun_path), "socket path");
	strcpy(address.sun_path, path);
	return address;
}

static int open_socket(void)
{
	int socket_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	check(socket_fd >= 0, "socket");
	return socket_fd;
}

static int open_mailbox(const char *path)
{
	struct sockaddr_un name = address(path);
	int mailbox = open_socket();

	unlink(path);
	check(bind(mailbox, (struct sockaddr *)&name, sizeof(name)) == 0, "bind");
	return mailbox;
}

/* A message of one byte, with room for one file. */
struct message {
	char byte;
	struct iovec part;
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr whole;
};

static void prepare(struct message *message)
{
	memset(message, 0, sizeof(*message));
	message->part.iov_base = &message->byte;
	message->part.iov_len = 1;
	message->whole.msg_iov = &message->part;
	message->whole.msg_iovlen = 1;
	message->whole.msg_control = message->control.room;
	message->whole.msg_controllen = sizeof(message->control.room);
}

/* Returns at once: the file is in the mailbox until it is received. */
static void send_file(const char *path, int fd)
{
	struct sockaddr_un name = address(path);
	struct message message;
	int socket_fd = open_socket();

	prepare(&message);
	message.whole.msg_name = &name;
	message.whole.msg_namelen = sizeof(name);
	message.control.header.cmsg_level = SOL_SOCKET;
	message.control.header.cmsg_type = SCM_RIGHTS;
	message.control.header.cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(&message.control.header), &fd, sizeof(fd));
	check(sendmsg(socket_fd, &message.whole, 0) == 1, "sendmsg");
	close(socket_fd);
}

static int receive_file(int mailbox)
{
	struct message message;
	int fd;

	prepare(&message);
	check(recvmsg(mailbox, &message.whole, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) == 1, "recvmsg");
	check(message.control.header.cmsg_type == SCM_RIGHTS, "a message without a file");
	memcpy(&fd, CMSG_DATA(&message.control.header), sizeof(fd));
	return fd;
}

int main(void)
{
	char line[4096], path[4096];
	unsigned long long offset, length;
	pthread_t thread;
	pid_t child = -1;
	int fd = -1, mailbox = -1;

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
		} else if (sscanf(line, "private %llu %llu", &offset, &length) == 2) {
			check(mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd,
				   (off_t)offset) != MAP_FAILED, "mmap");
		} else if (strncmp(line, "fork", 4) == 0) {
			child = start_child();
		} else if (sscanf(line, "socket %4095s", path) == 1) {
			mailbox = open_mailbox(path);
		} else if (sscanf(line, "send %4095s", path) == 1) {
			send_file(path, fd);
		} else if (strncmp(line, "receive", 7) == 0) {
			fd = receive_file(mailbox);
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
			break;
		}
		answer();
	}
	if (child > 0) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	return 0;
}
