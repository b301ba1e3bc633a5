/* The least of a Medplum-compatible server that an agent can live with.
 *
 * Secret: client-credentials token, /auth/me, the Agent and Endpoint resources, heartbeats (PROTOCOL 1 to 3), RFC 6455
 * without extensions; one thread, one epoll.
 * Promise: what one read brought is answered in one write. A program that includes this says what becomes of the
 * agent's transmit frames, and calls `open_server` once and `attend` for ever.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "accept_key.h"
#include "members.h"

typedef struct {
    char *data;
    size_t length, capacity;
} Buffer;

typedef struct {
    int fd, upgraded, hang_up, waits_to_write;
    Buffer in, out;
    size_t written;
} Connection;

enum { TYPE, CHANNEL, REMOTE, BODY, CALLBACK, MEMBERS };

static int poller, listening;
static char **channels; /* NAME=ADDRESS */
static int channel_count;
static Connection *agent; /* the last one that introduced itself; NULL: none is there */

/* A transmit frame of the agent: its string members, by the names above. */
static void take_transmit(Connection *c, const Text members[]);

static void reserve(Buffer *b, size_t more)
{
    if (b->length + more <= b->capacity)
        return;
    b->capacity = (b->length + more) * 2;
    b->data = realloc(b->data, b->capacity);
    if (!b->data)
        abort();
}

static void append(Buffer *b, const void *data, size_t length)
{
    reserve(b, length);
    memcpy(b->data + b->length, data, length);
    b->length += length;
}

static void print(Buffer *b, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    reserve(b, 4096);
    b->length += (size_t)vsnprintf(b->data + b->length, 4096, format, values);
    va_end(values);
}

/* ---- HTTP */

static void answer_json(Connection *c, int status, const Buffer *body)
{
    print(&c->out, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
          status, status == 200 ? "OK" : "Not Found", body->length);
    append(&c->out, body->data, body->length);
    c->hang_up = 1;
}

static void answer_agent(Buffer *body)
{
    print(body, "{\"resourceType\":\"Agent\",\"id\":\"bench\",\"name\":\"bench\",\"status\":\"active\",\"channel\":[");
    for (int i = 0; i < channel_count; i++)
        print(body, "%s{\"name\":\"%.*s\",\"endpoint\":{\"reference\":\"Endpoint/%d\"}}", i ? "," : "",
              (int)strcspn(channels[i], "="), channels[i], i);
    print(body, "]}");
}

static void serve_http(Connection *c, const char *request)
{
    Buffer body = {0};
    int status = 200, number;
    const char *key = strcasestr(request, "\r\nSec-WebSocket-Key:");
    if (key) {
        char sent[64], accept[32];
        if (sscanf(key + 20, " %63s", sent) != 1) {
            c->hang_up = 1;
            return;
        }
        accept_key(sent, accept);
        print(&c->out, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       "Sec-WebSocket-Accept: %s\r\n\r\n", accept);
        c->upgraded = 1;
        return;
    }
    if (!strncmp(request, "POST /oauth2/token", 18))
        print(&body, "{\"access_token\":\"bench.%0200d\",\"expires_in\":3600,\"token_type\":\"Bearer\"}", 0);
    else if (!strncmp(request, "GET /auth/me", 12))
        print(&body, "{\"project\":{\"name\":\"bench\"}}");
    else if (!strncmp(request, "GET /fhir/R4/Agent/", 19))
        answer_agent(&body);
    else if (sscanf(request, "GET /fhir/R4/Endpoint/%d", &number) == 1 && number >= 0 && number < channel_count)
        print(&body, "{\"resourceType\":\"Endpoint\",\"id\":\"%d\",\"status\":\"active\",\"address\":\"%s\"}", number,
              strchr(channels[number], '=') + 1);
    else {
        status = 404;
        print(&body, "{\"resourceType\":\"OperationOutcome\",\"issue\":[{\"severity\":\"error\",\"code\":\"not-found\"}]}");
    }
    answer_json(c, status, &body);
    free(body.data);
}

/* ---- WebSocket frames */

static void send_frame(Connection *c, int opcode, const char *data, size_t length)
{
    unsigned char head[4] = {(unsigned char)(0x80 | opcode), (unsigned char)(length < 126 ? length : 126),
                             (unsigned char)(length >> 8), (unsigned char)length};
    append(&c->out, head, length < 126 ? 2 : 4);
    append(&c->out, data, length);
}

static void take_text(Connection *c, const char *text, size_t length)
{
    static const char *const names[MEMBERS] = {"type", "channel", "remote", "body", "callback"};
    Text found[MEMBERS] = {{0}};
    read_members(text, text + length, names, found, MEMBERS);
    if (equal(found[TYPE], TRANSMIT))
        take_transmit(c, found);
    else if (equal(found[TYPE], "agent:connect:request")) {
        static const char welcome[] = "{\"type\":\"agent:connect:response\"}";
        send_frame(c, 1, welcome, sizeof welcome - 1);
        agent = c;
    } else if (equal(found[TYPE], "agent:heartbeat:request")) {
        static const char beat[] = "{\"type\":\"agent:heartbeat:response\",\"version\":\"bench\"}";
        send_frame(c, 1, beat, sizeof beat - 1);
    }
}

static void unmask(char *data, size_t length, const char mask[4])
{
    char twice[8];
    uint64_t wide, piece;
    memcpy(twice, mask, 4);
    memcpy(twice + 4, mask, 4);
    memcpy(&wide, twice, 8);
    size_t i = 0;
    for (; i + 8 <= length; i += 8) {
        memcpy(&piece, data + i, 8);
        piece ^= wide;
        memcpy(data + i, &piece, 8);
    }
    for (; i < length; i++)
        data[i] ^= mask[i & 3];
}

/* One frame from `data`; bytes used, 0 if it is not whole yet, -1 if the connection is to end. Clients mask every frame. */
static long take_frame(Connection *c, char *data, size_t available)
{
    unsigned char *p = (unsigned char *)data;
    size_t head = 2;
    if (available < 2)
        return 0;
    uint64_t length = p[1] & 127;
    if (length >= 126) {
        size_t wide = length == 126 ? 2 : 8;
        head += wide;
        if (available < head)
            return 0;
        length = 0;
        for (size_t i = 0; i < wide; i++)
            length = length << 8 | p[2 + i];
    }
    if (available < head + 4 + length)
        return 0;
    char *payload = data + head + 4;
    unmask(payload, length, data + head);
    int opcode = p[0] & 15;
    if (opcode == 1)
        take_text(c, payload, length);
    else if (opcode == 9)
        send_frame(c, 10, payload, length);
    else if (opcode == 8) {
        send_frame(c, 8, payload, length < 2 ? 0 : 2);
        c->hang_up = 1;
        return -1;
    }
    return (long)(head + 4 + length);
}

/* ---- sockets */

static void digest(Connection *c)
{
    size_t used = 0;
    if (!c->upgraded) {
        reserve(&c->in, 1);
        c->in.data[c->in.length] = 0;
        char *end = strstr(c->in.data, "\r\n\r\n");
        if (!end)
            return;
        const char *size = strcasestr(c->in.data, "\r\nContent-Length:");
        used = (size_t)(end + 4 - c->in.data) + (size && size < end ? strtoul(size + 17, NULL, 10) : 0);
        if (used > c->in.length)
            return;
        serve_http(c, c->in.data);
    }
    while (c->upgraded) {
        long took = take_frame(c, c->in.data + used, c->in.length - used);
        if (took <= 0)
            break;
        used += (size_t)took;
    }
    memmove(c->in.data, c->in.data + used, c->in.length - used);
    c->in.length -= used;
}

static void watch(Connection *c, int writing)
{
    if (c->waits_to_write == writing)
        return;
    struct epoll_event wanted = {.events = EPOLLIN | (writing ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &wanted);
    c->waits_to_write = writing;
}

/* Write what is waiting; 0 once the connection is over. */
static int flush(Connection *c)
{
    while (c->written < c->out.length) {
        ssize_t sent = send(c->fd, c->out.data + c->written, c->out.length - c->written, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            watch(c, 1);
            return 1;
        }
        if (sent < 0)
            return 0;
        c->written += (size_t)sent;
    }
    c->written = c->out.length = 0;
    watch(c, 0);
    return !c->hang_up;
}

static int read_some(Connection *c)
{
    reserve(&c->in, 1 << 18);
    ssize_t got = recv(c->fd, c->in.data + c->in.length, c->in.capacity - c->in.length - 1, 0);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    c->in.length += (size_t)got;
    digest(c);
    return 1;
}

static void end(Connection *c)
{
    if (agent == c)
        agent = NULL;
    close(c->fd);
    free(c->in.data);
    free(c->out.data);
    free(c);
}

static void welcome(void)
{
    int one = 1, fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    Connection *c = calloc(1, sizeof *c);
    c->fd = fd;
    struct epoll_event readable = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &readable);
}

/* Listen, and print the port as a line. */
static void open_server(void)
{
    listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (bind(listening, (void *)&address, sizeof address) || listen(listening, 64)
        || getsockname(listening, (void *)&address, &size)) {
        perror("the server cannot listen");
        exit(1);
    }
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event readable = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, listening, &readable);
}

/* Do what there is to do, after waiting for it for so long at most; -1: without limit. */
static void attend(int timeout_ms)
{
    struct epoll_event events[64];
    int ready = epoll_wait(poller, events, 64, timeout_ms);
    for (int i = 0; i < ready; i++) {
        Connection *c = events[i].data.ptr;
        if (!c)
            welcome();
        else if (((events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !read_some(c)) || !flush(c))
            end(c);
    }
}
