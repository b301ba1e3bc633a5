/* What stands in a frame of the agent's socket, as far as a benchmark wants to know it.
 *
 * Secret: how the strings of a flat JSON object (RFC 8259) are found without reading the rest.
 * Promise: nothing is copied and nothing unescaped: a value is what stands on the wire.
 */
#include <string.h>

typedef struct {
    const char *start;
    size_t length;
} Text; /* a JSON string as it stands on the wire, escapes and all; start NULL: not there */

/* The end of a JSON string: the first quote behind an even number of backslashes. */
static const char *string_end(const char *p, const char *end)
{
    for (const char *quote = p; (quote = memchr(quote, '"', (size_t)(end - quote))); quote++) {
        const char *back = quote;
        while (back > p && back[-1] == '\\')
            back--;
        if ((quote - back) % 2 == 0)
            return quote;
    }
    return NULL;
}

/* The string members of one flat JSON object; numbers and words between them are passed over. */
static void read_members(const char *p, const char *end, const char *const names[], Text values[], int count)
{
    while ((p = memchr(p, '"', (size_t)(end - p)))) {
        const char *name = ++p, *name_end = string_end(p, end);
        if (!name_end)
            return;
        for (p = name_end + 1; p < end && (*p == ':' || *p == ' ');)
            p++;
        if (p == end || *p != '"')
            continue;
        const char *value = ++p, *value_end = string_end(p, end);
        if (!value_end)
            return;
        for (int i = 0; i < count; i++)
            if (strlen(names[i]) == (size_t)(name_end - name) && !memcmp(names[i], name, (size_t)(name_end - name)))
                values[i] = (Text){value, (size_t)(value_end - value)};
        p = value_end + 1;
    }
}

static int equal(Text text, const char *wanted)
{
    return text.start && text.length == strlen(wanted) && !memcmp(text.start, wanted, text.length);
}
