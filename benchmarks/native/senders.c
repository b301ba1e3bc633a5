/* Senders of HL7 messages over MLLP, many connections from one thread, each with a window of unanswered messages.
 *
 * usage: senders PORT [--connections N] [--window W] [--warm S] [--seconds S] [--size BYTES]
 *                     [--enhanced | --one-each | --idle]
 *
 * Secret: epoll, and the ring of send times behind the latencies.
 * Promise: an acknowledgement counts only if its MSA-2 names a message of this connection that is unanswered;
 * everything else is counted as an error, and so is a connection that ends with messages unanswered (it is dialled
 * again). Prints `measuring` when the warm-up is over and one JSON object at the end; times in microseconds.
 * --enhanced: a message is over when both CA and AA have come, and each connection has a loopback address of its own,
 * since enhanced channels keep order per address. --one-each: a new connection for every message. --idle: connect, print
 * `idle`, say nothing until stdin ends.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "latency.h"
#include "messages.h"

enum { RING = 1024, INPUT_BYTES = 65536 };
enum { FREE, UNANSWERED, COMMITTED };

typedef struct {
    int fd, connected, in_flight;
    uint64_t next, sent_us[RING];
    unsigned char state[RING];
    char *in, *out;
    size_t in_length, out_length, out_written;
    int waits_to_write;
} Connection;

static int port, connection_count = 1, window = 1, size_bytes = 1024, enhanced, one_each, idle;
static double warm_s = 0.5, measured_s = 2;
static int poller, measuring;
static Connection *connections;
static uint64_t histogram[BUCKETS], commit_histogram[BUCKETS];
static uint64_t answered, refused, errors, reconnects, slowest_us, quiet_us, last_answer_us;

static double cpu_s(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec)
           + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

/* ---- messages */

static void compose(Connection *c, uint64_t now)
{
    char *frame = c->out + c->out_length;
    memcpy(frame, template, frame_bytes);
    write_digits(frame + id_at + ID_MARK, CONNECTION_DIGITS, (uint64_t)(c - connections));
    write_digits(frame + id_at + ID_MARK + CONNECTION_DIGITS, SERIAL_DIGITS, c->next);
    c->sent_us[c->next % RING] = now;
    c->state[c->next % RING] = UNANSWERED;
    c->out_length += frame_bytes;
    c->next++;
    c->in_flight++;
}

/* One acknowledgement, without its framing. */
static void take_answer(Connection *c, const char *message, size_t length, uint64_t now)
{
    const char *msa = memmem(message, length, "\rMSA|", 5);
    uint64_t owner, serial;
    if (!msa || message + length - msa < 8 || msa[7] != '|' || !read_id(msa + 8, message + length, &owner, &serial)
        || owner != (uint64_t)(c - connections) || serial >= c->next || serial + RING < c->next) {
        errors++;
        return;
    }
    unsigned char *state = &c->state[serial % RING];
    uint64_t waited_us = now - c->sent_us[serial % RING];
    if (*state == FREE) {
        errors++;
        return;
    }
    if (enhanced && *state == UNANSWERED && !memcmp(msa + 5, "CA", 2)) {
        *state = COMMITTED;
        if (measuring)
            record(commit_histogram, waited_us);
        return;
    }
    if (memcmp(msa + 5, "AA", 2))
        refused++;
    else if (enhanced && *state == UNANSWERED)
        errors++; /* the application's word before the commit's */
    *state = FREE;
    c->in_flight--;
    if (!measuring)
        return;
    answered++;
    record(histogram, waited_us);
    if (waited_us > slowest_us)
        slowest_us = waited_us;
    if (now - last_answer_us > quiet_us)
        quiet_us = now - last_answer_us;
    last_answer_us = now;
}

/* ---- sockets */

static void watch(Connection *c, int operation, int writing)
{
    struct epoll_event wanted = {.events = EPOLLIN | (writing ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poller, operation, c->fd, &wanted);
    c->waits_to_write = writing;
}

static void dial(Connection *c)
{
    int one = 1;
    uint32_t number = (uint32_t)(c - connections);
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        perror("senders: no socket");
        exit(1);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (enhanced) {
        struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7F010000u + number)};
        bind(c->fd, (void *)&here, sizeof here);
    }
    if (connect(c->fd, (void *)&there, sizeof there) && errno != EINPROGRESS) {
        perror("senders: cannot connect");
        exit(1);
    }
    c->connected = 0;
    c->in_length = c->out_length = c->out_written = 0;
    watch(c, EPOLL_CTL_ADD, 1);
}

static void flush(Connection *c)
{
    while (c->out_written < c->out_length) {
        ssize_t sent = send(c->fd, c->out + c->out_written, c->out_length - c->out_written, MSG_NOSIGNAL);
        if (sent < 0)
            break; /* EAGAIN, or an end that the next read will show */
        c->out_written += (size_t)sent;
    }
    int left = c->out_written < c->out_length;
    if (!left)
        c->out_written = c->out_length = 0;
    if (left != c->waits_to_write)
        watch(c, EPOLL_CTL_MOD, left);
}

static void fill_window(Connection *c, uint64_t now)
{
    if (idle || c->out_length) /* what could not be written yet keeps the rest waiting */
        return;
    while (c->in_flight < window)
        compose(c, now);
    flush(c);
}

static void redial(Connection *c)
{
    memset(c->state, FREE, sizeof c->state);
    c->in_flight = 0;
    close(c->fd);
    dial(c);
}

static void read_answers(Connection *c)
{
    ssize_t got = recv(c->fd, c->in + c->in_length, INPUT_BYTES - c->in_length, 0);
    if (got <= 0) {
        if (got < 0 && errno == EAGAIN)
            return;
        reconnects++;
        if (c->in_flight)
            errors++;
        redial(c);
        return;
    }
    c->in_length += (size_t)got;
    uint64_t now = now_us();
    char *from = c->in, *end = c->in + c->in_length, *stop;
    while ((stop = memmem(from, (size_t)(end - from), "\x1c\r", 2))) {
        take_answer(c, from, (size_t)(stop - from), now);
        from = stop + 2;
    }
    c->in_length = (size_t)(end - from);
    memmove(c->in, from, c->in_length);
    if (one_each && !c->in_flight)
        redial(c);
    else
        fill_window(c, now);
}

static void attend(Connection *c, uint32_t events)
{
    if (!c->connected && events & EPOLLOUT && !(events & (EPOLLERR | EPOLLHUP))) {
        c->connected = 1;
        watch(c, EPOLL_CTL_MOD, 0);
        fill_window(c, now_us());
        return;
    }
    if (events & EPOLLOUT)
        flush(c);
    if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
        read_answers(c);
}

static void wait_for_events(int timeout_ms)
{
    struct epoll_event events[256];
    int ready = epoll_wait(poller, events, 256, timeout_ms);
    for (int i = 0; i < ready; i++)
        attend(events[i].data.ptr, events[i].events);
}

static void stay_idle(void)
{
    uint64_t give_up_us = now_us() + 20000000;
    for (int i = 0; i < connection_count && now_us() < give_up_us;)
        if (connections[i].connected)
            i++;
        else
            wait_for_events(100);
    printf("idle\n");
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) > 0)
        ;
    printf("{\"connections\":%d,\"reconnects\":%llu}\n", connection_count, (unsigned long long)reconnects);
}

static void measure(void)
{
    uint64_t measure_at = now_us() + (uint64_t)(warm_s * 1e6), end_at = measure_at + (uint64_t)(measured_s * 1e6), now;
    double cpu = 0;
    while ((now = now_us()) < end_at) {
        if (!measuring && now >= measure_at) {
            measuring = 1;
            last_answer_us = now;
            cpu = cpu_s();
            printf("measuring\n");
            fflush(stdout);
        }
        wait_for_events(10);
    }
    double elapsed_s = (double)(now - measure_at) / 1e6;
    if (now - last_answer_us > quiet_us)
        quiet_us = now - last_answer_us;
    printf("{\"answered\":%llu,\"elapsed_s\":%.4f,\"rate\":%.1f,\"p50_us\":%llu,\"p95_us\":%llu,\"p99_us\":%llu,\"max_us\":%llu,"
           "\"commit_p50_us\":%llu,\"quiet_us\":%llu,\"refused\":%llu,\"errors\":%llu,\"reconnects\":%llu,\"cpu_share\":%.3f}\n",
           (unsigned long long)answered, elapsed_s, (double)answered / elapsed_s,
           (unsigned long long)percentile(histogram, 0.5), (unsigned long long)percentile(histogram, 0.95),
           (unsigned long long)percentile(histogram, 0.99), (unsigned long long)slowest_us, (unsigned long long)percentile(commit_histogram, 0.5),
           (unsigned long long)quiet_us, (unsigned long long)refused, (unsigned long long)errors,
           (unsigned long long)reconnects, (cpu_s() - cpu) / elapsed_s);
}

static void read_options(int count, char **arguments)
{
    static const struct option known[] = {
        {"connections", 1, NULL, 'c'}, {"window", 1, NULL, 'w'}, {"warm", 1, NULL, 'W'}, {"seconds", 1, NULL, 's'},
        {"size", 1, NULL, 'b'}, {"enhanced", 0, NULL, 'e'}, {"one-each", 0, NULL, 'o'}, {"idle", 0, NULL, 'i'}, {0}};
    for (int option; (option = getopt_long(count, arguments, "", known, NULL)) != -1;)
        switch (option) {
        case 'c': connection_count = atoi(optarg); break;
        case 'w': window = atoi(optarg); break;
        case 'W': warm_s = atof(optarg); break;
        case 's': measured_s = atof(optarg); break;
        case 'b': size_bytes = atoi(optarg); break;
        case 'e': enhanced = 1; break;
        case 'o': one_each = 1; break;
        case 'i': idle = 1; break;
        default: exit(2);
        }
    port = optind < count ? atoi(arguments[optind]) : 0;
    if (port <= 0 || connection_count < 1 || connection_count > 60000 || window < 1 || window > RING / 2
        || size_bytes < 400) {
        fprintf(stderr, "senders: PORT, 1 to 60000 connections, a window of 1 to %d, at least 400 bytes\n", RING / 2);
        exit(2);
    }
}

int main(int count, char **arguments)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    read_options(count, arguments);
    build_template(size_bytes, now_us());
    poller = epoll_create1(EPOLL_CLOEXEC);
    connections = calloc((size_t)connection_count, sizeof *connections);
    for (int i = 0; i < connection_count; i++) {
        if (!idle) {
            connections[i].in = malloc(INPUT_BYTES);
            connections[i].out = malloc(frame_bytes * (size_t)window);
        }
        dial(&connections[i]);
    }
    if (idle)
        stay_idle();
    else
        measure();
    return 0;
}
