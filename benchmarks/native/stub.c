/* A server that costs next to nothing: every message on the WebSocket is answered with an AA at once.
 *
 * usage: stub NAME=ADDRESS...      one channel each, as NAME=mllp://127.0.0.1:2575
 *
 * Secret: the words of the answer.
 * Promise: prints its port as the only line, answers transmit requests in order, each with MSA-2 = MSH-10 and the callback
 * unchanged; ends with its parent.
 */
#define _GNU_SOURCE
#define TRANSMIT "agent:transmit:request"
#include "server.h"

static Text control_id(Text body)
{
    const char *p = body.start, *end = body.start + body.length;
    for (int field = 0; p && field < 9; field++)
        if ((p = memchr(p, '|', (size_t)(end - p))))
            p++;
    if (!p)
        return (Text){"", 0};
    const char *stop = memchr(p, '|', (size_t)(end - p));
    return (Text){p, stop ? (size_t)(stop - p) : 0};
}

static void take_transmit(Connection *c, const Text members[])
{
    Text channel = members[CHANNEL], remote = members[REMOTE], callback = members[CALLBACK], id = control_id(members[BODY]);
    char answer[2048];
    int size = snprintf(
        answer, sizeof answer,
        "{\"type\":\"agent:transmit:response\",\"channel\":\"%.*s\",\"remote\":\"%.*s\","
        "\"contentType\":\"x-application/hl7-v2+er7\",\"statusCode\":200,\"body\":\"MSH|^~\\\\&|HOSP|AGENT|WARD|BENCH|"
        "20260101000000||ACK^A01^ACK|R%.*s|P|2.5.1\\rMSA|AA|%.*s|OK\\r\",\"callback\":\"%.*s\"}",
        (int)channel.length, channel.start ? channel.start : "", (int)remote.length, remote.start ? remote.start : "",
        (int)id.length, id.start, (int)id.length, id.start, (int)callback.length, callback.start ? callback.start : "");
    if (size > 0 && (size_t)size < sizeof answer)
        send_frame(c, 1, answer, (size_t)size);
}

int main(int count, char **arguments)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    channels = arguments + 1;
    channel_count = count - 1;
    for (int i = 0; i < channel_count; i++)
        if (!strchr(channels[i], '=')) {
            fprintf(stderr, "stub: %s is no NAME=ADDRESS\n", channels[i]);
            return 2;
        }
    open_server();
    for (;;)
        attend(-1);
}
