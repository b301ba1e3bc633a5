/* A server that pushes through its agent, and measures how long the answers take.
 *
 * usage: pushes [--window W] [--warm S] [--seconds S] [--size BYTES] URL...
 *        pushes --count N [--rate R] [--silent K] [--size BYTES] URL...
 *        pushes --message [--size BYTES]
 *
 * Secret: the frame of a push, and which answer belongs to which of them.
 * Promise: an answer counts only if its callback names a push that is unanswered and the acknowledgement in it is an AA
 * for that push's message; everything else is counted as an error, the first one told on stderr. Prints its port, then
 * `measuring` when the agent is there and warm, and one JSON object at the end; times in microseconds. Ends with its parent,
 * and with the agent.
 * Without --count: every remote has W pushes unanswered all the time. With it: N pushes, the remotes in turn, at R each
 * second (0: all at once) whether or not the agent keeps up; it ends when all are answered but those to the first K
 * remotes, or after a minute, and what is missing then are errors. --message: print the message and end.
 */
#define _GNU_SOURCE
#include <getopt.h>

#define TRANSMIT "agent:transmit:response"
#include "server.h"

#include "latency.h"
#include "messages.h"

enum { RING = 1 << 17, GIVE_UP_S = 60 };

typedef struct {
    uint64_t number, began_us;
    int remote, unanswered;
} PushState;

static int window = 1, count, silent, size_bytes = 1024, show, remote_count;
static double warm_s = 0.5, measured_s = 2, rate;
static char **remotes, **frames; /* one frame for each remote, all digits 0 */
static size_t *frame_lengths, *ids_at, *callbacks_at;
static PushState pushes[RING];
static uint64_t pushed, answered, errors, histogram[BUCKETS];
static int measuring;

static void append_escaped(Buffer *b, const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (text[i] == '\r')
            append(b, "\\r", 2);
        else {
            if (text[i] == '\\')
                append(b, "\\", 1);
            append(b, text + i, 1);
        }
}

static void build_frames(void)
{
    frames = calloc((size_t)remote_count, sizeof *frames);
    frame_lengths = calloc((size_t)remote_count, sizeof *frame_lengths);
    ids_at = calloc((size_t)remote_count, sizeof *ids_at);
    callbacks_at = calloc((size_t)remote_count, sizeof *callbacks_at);
    for (int i = 0; i < remote_count; i++) {
        Buffer b = {0};
        print(&b, "{\"type\":\"agent:transmit:request\",\"remote\":\"%s\",\"contentType\":\"x-application/hl7-v2+er7\",\"body\":\"",
              remotes[i]);
        append_escaped(&b, template + 1, id_at - 1);
        ids_at[i] = b.length;
        append_escaped(&b, template + id_at, frame_bytes - 2 - id_at);
        print(&b, "\",\"callback\":\"Agent/00000000-0000-4000-8000-000000000000-");
        callbacks_at[i] = b.length;
        print(&b, "%0*d\"}", SERIAL_DIGITS, 0);
        frames[i] = b.data;
        frame_lengths[i] = b.length;
    }
}

static void push(int remote, uint64_t began_us)
{
    PushState *state = &pushes[pushed % RING];
    if (state->unanswered) {
        fprintf(stderr, "pushes: more than %d pushes are unanswered\n", RING);
        exit(1);
    }
    *state = (PushState){.number = pushed, .began_us = began_us, .remote = remote, .unanswered = 1};
    char *frame = frames[remote];
    write_digits(frame + ids_at[remote] + ID_MARK, CONNECTION_DIGITS, (uint64_t)remote);
    write_digits(frame + ids_at[remote] + ID_MARK + CONNECTION_DIGITS, SERIAL_DIGITS, pushed);
    write_digits(frame + callbacks_at[remote], SERIAL_DIGITS, pushed);
    send_frame(agent, 1, frame, frame_lengths[remote]);
    pushed++;
}

static void complain(Text body)
{
    if (!errors++)
        fprintf(stderr, "pushes: not the answer: %.*s\n", body.start ? (int)body.length : 0, body.start ? body.start : "");
}

static void take_transmit(Connection *c, const Text members[])
{
    Text body = members[BODY], callback = members[CALLBACK];
    uint64_t number, remote, serial, now = now_us();
    (void)c;
    if (callback.length < SERIAL_DIGITS
        || !read_digits(callback.start + callback.length - SERIAL_DIGITS, SERIAL_DIGITS, &number)) {
        complain(body);
        return;
    }
    PushState *state = &pushes[number % RING];
    if (!state->unanswered || state->number != number) {
        complain(body);
        return;
    }
    state->unanswered = 0;
    if (state->remote < silent)
        return; /* that nothing came, or that it was pushed in vain */
    const char *msa = body.start ? memmem(body.start, body.length, "MSA|AA|", 7) : NULL;
    if (!msa || !read_id(msa + 7, body.start + body.length, &remote, &serial) || serial != number
        || remote != (uint64_t)state->remote)
        complain(body);
    else if (measuring) {
        answered++;
        record(histogram, now - state->began_us);
    }
    if (!count)
        push(state->remote, now);
}

/* One round of the sockets; what was pushed in it leaves in one write. */
static void go_on(int timeout_ms)
{
    attend(timeout_ms);
    if (!agent) {
        fprintf(stderr, "pushes: the agent has gone\n");
        exit(1);
    }
    if (!flush(agent))
        end(agent);
}

static void begin_measuring(void)
{
    measuring = 1;
    printf("measuring\n");
    fflush(stdout);
}

static double keep_windows_full(void)
{
    uint64_t measure_at = now_us() + (uint64_t)(warm_s * 1e6), end_at = measure_at + (uint64_t)(measured_s * 1e6), now;
    for (int i = 0; i < window * remote_count; i++)
        push(i % remote_count, now_us());
    while ((now = now_us()) < end_at) {
        if (!measuring && now >= measure_at)
            begin_measuring();
        go_on(1);
    }
    return (double)(now - measure_at) / 1e6;
}

static double push_all(void)
{
    uint64_t owed = 0, began = now_us(), now = began, last = began;
    for (int i = 0; i < count; i++)
        owed += i % remote_count >= silent;
    begin_measuring();
    while (answered < owed && now - began < GIVE_UP_S * 1000000ull) {
        uint64_t due = rate > 0 ? (uint64_t)((double)(now - began) * rate / 1e6) + 1 : (uint64_t)count;
        while (pushed < due && pushed < (uint64_t)count)
            push((int)(pushed % (uint64_t)remote_count), now);
        uint64_t before = answered;
        go_on(1);
        now = now_us();
        if (answered != before)
            last = now;
    }
    errors += owed - answered;
    return (double)(last - began) / 1e6;
}

static void read_options(int argument_count, char **arguments)
{
    static const struct option known[] = {
        {"window", 1, NULL, 'w'}, {"warm", 1, NULL, 'W'}, {"seconds", 1, NULL, 's'}, {"size", 1, NULL, 'b'},
        {"count", 1, NULL, 'c'}, {"rate", 1, NULL, 'r'}, {"silent", 1, NULL, 'q'}, {"message", 0, NULL, 'm'}, {0}};
    for (int option; (option = getopt_long(argument_count, arguments, "", known, NULL)) != -1;)
        switch (option) {
        case 'w': window = atoi(optarg); break;
        case 'W': warm_s = atof(optarg); break;
        case 's': measured_s = atof(optarg); break;
        case 'b': size_bytes = atoi(optarg); break;
        case 'c': count = atoi(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 'q': silent = atoi(optarg); break;
        case 'm': show = 1; break;
        default: exit(2);
        }
    remotes = arguments + optind;
    remote_count = argument_count - optind;
    if (size_bytes < 400 || size_bytes > 60000
        || (!show && (remote_count < 1 || window < 1 || window * remote_count > RING || count < 0 || count > RING
                      || silent < 0 || silent >= remote_count))) {
        fprintf(stderr, "pushes: remotes of which one answers, %d pushes, 400 to 60000 bytes\n", RING);
        exit(2);
    }
}

int main(int argument_count, char **arguments)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    read_options(argument_count, arguments);
    build_template(size_bytes, now_us());
    if (show) {
        fwrite(template + 1, 1, frame_bytes - 3, stdout);
        return 0;
    }
    build_frames();
    open_server();
    while (!agent)
        attend(-1);
    double elapsed_s = count ? push_all() : keep_windows_full();
    printf("{\"answered\":%llu,\"elapsed_s\":%.4f,\"rate\":%.1f,\"p50_us\":%llu,\"p95_us\":%llu,\"p99_us\":%llu,\"errors\":%llu}\n",
           (unsigned long long)answered, elapsed_s, (double)answered / elapsed_s,
           (unsigned long long)percentile(histogram, 0.5), (unsigned long long)percentile(histogram, 0.95),
           (unsigned long long)percentile(histogram, 0.99), (unsigned long long)errors);
    return 0;
}
