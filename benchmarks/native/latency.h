/* How long things took, and what the clock says.
 *
 * Secret: the histogram: 64 steps to each power of two, in microseconds.
 * Promise: a percentile is at most 1.6 % below the true one.
 */
#include <stdint.h>
#include <time.h>

enum { STEPS = 64, BUCKETS = 64 * STEPS };

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static unsigned bucket_of(uint64_t us)
{
    if (us < STEPS)
        return (unsigned)us;
    unsigned power = 63u - (unsigned)__builtin_clzll(us) - 6u; /* 2^6 = STEPS */
    return power * STEPS + (unsigned)(us >> power);
}

static uint64_t value_of(unsigned bucket)
{
    if (bucket < 2 * STEPS)
        return bucket;
    unsigned power = bucket / STEPS - 1;
    return (uint64_t)(bucket - power * STEPS) << power;
}

static uint64_t percentile(const uint64_t *counts, double share)
{
    uint64_t total = 0, below = 0;
    for (unsigned i = 0; i < BUCKETS; i++)
        total += counts[i];
    for (unsigned i = 0; i < BUCKETS; i++)
        if ((below += counts[i]) > share * (double)total)
            return value_of(i);
    return 0;
}

static void record(uint64_t *counts, uint64_t us)
{
    unsigned bucket = bucket_of(us);
    counts[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
}
