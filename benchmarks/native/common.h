// What the mock engine and the load generator share: the clock, growing buffers, stamps in tokens.
#ifndef HEADRACE_BENCH_COMMON_H
#define HEADRACE_BENCH_COMMON_H
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    char *data;
    size_t length, capacity;
} Buffer;

// CLOCK_MONOTONIC is one clock for all processes of a machine, so a stamp written by the mock can be
// compared with the time at which another process reads it.
static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static inline void reserve(Buffer *b, size_t more) {
    if (b->length + more + 1 <= b->capacity) return;
    b->capacity = (b->length + more + 1) * 2;
    b->data = realloc(b->data, b->capacity);
    if (!b->data) abort();
}

static inline void append(Buffer *b, const char *data, size_t length) {
    reserve(b, length);
    memcpy(b->data + b->length, data, length);
    b->length += length;
    b->data[b->length] = 0;
}

static inline void append_text(Buffer *b, const char *text) { append(b, text, strlen(text)); }

static inline void drop_front(Buffer *b, size_t length) {
    memmove(b->data, b->data + length, b->length - length);
    b->length -= length;
}

static inline void release(Buffer *b) {
    free(b->data);
    *b = (Buffer){0};
}

// A stamp is a time in nanoseconds as 14 letters a to p (4 bits each) after " T": letters, because a
// long run of digits is what a redaction hook looks for.
#define STAMP_LETTERS 14
#define STAMP_LENGTH (STAMP_LETTERS + 2)

static inline void write_stamp(char *out, uint64_t ns) {
    out[0] = ' ';
    out[1] = 'T';
    for (int i = STAMP_LETTERS - 1; i >= 0; i--, ns >>= 4) out[2 + i] = (char)('a' + (ns & 15));
}

// The stamp at `text`, or 0 if there is none.
static inline uint64_t read_stamp(const char *text) {
    if (text[0] != ' ' || text[1] != 'T') return 0;
    uint64_t ns = 0;
    for (int i = 0; i < STAMP_LETTERS; i++) {
        unsigned digit = (unsigned)(text[2 + i] - 'a');
        if (digit > 15) return 0;
        ns = ns << 4 | digit;
    }
    return ns;
}

static inline void raise_descriptor_limit(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static inline void watch(int poll, int op, int fd, void *who, bool writing) {
    struct epoll_event event = {.events = EPOLLIN | (writing ? EPOLLOUT : 0), .data.ptr = who};
    epoll_ctl(poll, op, fd, &event);
}
#endif
