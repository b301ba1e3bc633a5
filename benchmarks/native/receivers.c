/* Remotes that cost next to nothing: every message is answered with an AA at once, or with nothing at all.
 *
 * usage: receivers COUNT [SILENT]      that many ports, of which the first SILENT take messages and never answer
 *
 * Secret: epoll, and the words of the answer.
 * Promise: prints its ports as the only line, between spaces. On one connection messages are answered in order, all that
 * one read completed in one write, each with MSA-2 = MSH-10; ends with its parent.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { INPUT_BYTES = 1 << 18, ANSWER_BYTES = 256, SMALLEST_BYTES = 64, MOST_PORTS = 1000 };

typedef struct {
    int fd, listens, silent;
    char *in;
    size_t in_length;
} Socket;

static int poller;
static char out[INPUT_BYTES / SMALLEST_BYTES * ANSWER_BYTES];

/* The answer to one message, at `place`; its length, 0 if there is none to give. */
static size_t answer(char *place, const char *message, const char *end)
{
    const char *id = message;
    for (int field = 0; id && field < 9; field++)
        if ((id = memchr(id, '|', (size_t)(end - id))))
            id++;
    const char *stop = id ? memchr(id, '|', (size_t)(end - id)) : NULL;
    if (!stop || stop - id > 60)
        return 0;
    int size = (int)(stop - id);
    return (size_t)sprintf(place, "\x0bMSH|^~\\&|LAB|HOSP|BENCH|WARD|20260101000000||ACK^A01^ACK|R%.*s|P|2.5.1\rMSA|AA|%.*s|OK\r\x1c\r",
                           size, id, size, id);
}

/* 0 once the connection is over. */
static int converse(Socket *s)
{
    ssize_t got = recv(s->fd, s->in + s->in_length, INPUT_BYTES - s->in_length, 0);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    if (s->silent)
        return 1;
    s->in_length += (size_t)got;
    size_t out_length = 0;
    char *from = s->in, *end = s->in + s->in_length, *stop;
    while ((stop = memmem(from, (size_t)(end - from), "\x1c\r", 2))) {
        if (stop - from >= SMALLEST_BYTES)
            out_length += answer(out + out_length, from, stop);
        from = stop + 2;
    }
    s->in_length = (size_t)(end - from);
    memmove(s->in, from, s->in_length);
    return s->in_length < INPUT_BYTES && (!out_length || send(s->fd, out, out_length, MSG_NOSIGNAL) == (ssize_t)out_length);
}

static void watch(int fd, Socket s)
{
    Socket *kept = malloc(sizeof *kept);
    *kept = s;
    kept->fd = fd;
    kept->in = s.listens ? NULL : malloc(INPUT_BYTES);
    struct epoll_event readable = {.events = EPOLLIN, .data.ptr = kept};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &readable);
}

static void welcome(const Socket *door)
{
    int one = 1, fd = accept4(door->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    watch(fd, (Socket){.silent = door->silent});
}

static int open_port(int silent)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (bind(fd, (void *)&address, sizeof address) || listen(fd, 1024) || getsockname(fd, (void *)&address, &size)) {
        perror("receivers: cannot listen");
        exit(1);
    }
    watch(fd, (Socket){.listens = 1, .silent = silent});
    return ntohs(address.sin_port);
}

int main(int count, char **arguments)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int ports = count > 1 ? atoi(arguments[1]) : 0, silent = count > 2 ? atoi(arguments[2]) : 0;
    if (ports < 1 || ports > MOST_PORTS || silent < 0 || silent > ports) {
        fprintf(stderr, "receivers: 1 to %d ports, and not more silent ones than there are\n", MOST_PORTS);
        return 2;
    }
    poller = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < ports; i++)
        printf("%s%d", i ? " " : "", open_port(i < silent));
    printf("\n");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[256];
        int ready = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            Socket *s = events[i].data.ptr;
            if (s->listens)
                welcome(s);
            else if (!converse(s)) {
                close(s->fd);
                free(s->in);
                free(s);
            }
        }
    }
}
