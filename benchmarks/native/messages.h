/* The message that every benchmark sends: an ADT^A01 of a given size with a control id of its own.
 *
 * Secret: what stands in it, and where its control id (MSH-10) does: ID_MARK characters that are the same for a whole run,
 * then digits that number connection and message.
 * Promise: `template` is one MLLP frame of `frame_bytes`, the message in it of `size_bytes`, all digits 0.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ID_MARK = 4, SERIAL_DIGITS = 9, CONNECTION_DIGITS = 5, ID_BYTES = ID_MARK + CONNECTION_DIGITS + SERIAL_DIGITS };

static char *template, run_mark[ID_MARK + 1];
static size_t frame_bytes, id_at;

/* `size_bytes`: 400 at least. */
static void build_template(int size_bytes, uint64_t unique)
{
    snprintf(run_mark, sizeof run_mark, "%04x", (unsigned)((uint64_t)getpid() * 2654435761u ^ unique) & 0xffffu);
    frame_bytes = (size_t)size_bytes + 3;
    template = malloc(frame_bytes + 512);
    int length = sprintf(template, "\x0bMSH|^~\\&|BENCH|WARD|AGENT|HOSP|20260101000000||ADT^A01^ADT_A01|");
    id_at = (size_t)length;
    length += sprintf(template + length, "%s%0*d|P|2.5.1\rEVN|A01|20260101000000\r"
                      "PID|1||900001^^^HOSP^MR||TEST^PATIENT^A||19700101|F|||1 TEST STREET^^TESTTOWN^^00000\rPV1|1|I|W1^101^A\r",
                      run_mark, CONNECTION_DIGITS + SERIAL_DIGITS, 0);
    while ((size_t)length < frame_bytes - 3)
        length += sprintf(template + length, "OBX|1|NM|8302-2^BODY HEIGHT^LN||180|cm|150-200|N|||F\r");
    memcpy(template + frame_bytes - 3, "\r\x1c\r", 3);
}

static void write_digits(char *place, int digits, uint64_t number)
{
    while (digits--) {
        place[digits] = (char)('0' + number % 10);
        number /= 10;
    }
}

static int read_digits(const char *place, int digits, uint64_t *number)
{
    for (*number = 0; digits--; place++) {
        if (*place < '0' || *place > '9')
            return 0;
        *number = *number * 10 + (uint64_t)(*place - '0');
    }
    return 1;
}

/* The numbers in a control id of this run that stands at `text`; 0 if there is none. */
static int read_id(const char *text, const char *end, uint64_t *connection, uint64_t *serial)
{
    return end - text >= ID_BYTES && !memcmp(text, run_mark, ID_MARK)
           && read_digits(text + ID_MARK, CONNECTION_DIGITS, connection)
           && read_digits(text + ID_MARK + CONNECTION_DIGITS, SERIAL_DIGITS, serial);
}
