// What the load generators share: their options, when they begin what, what they measure, their report.
//
//     closed loop   --connections 64 --seconds 5         each asks again when it is answered
//     open loop     --connections 64 --seconds 5 --rate 100    latency counts from the time it was due
//     streams       --connections 9500 --ramp 1000       one request each, begun at 1,000 a second
//   --warm S     leave out what is measured in the first S seconds
//   --timeout S  give up S seconds after the end (default 60)
//   --requests N stop after N requests
//
// A token is a stamp of the mock (common.h). Times in milliseconds; `delay` is from the mock's stamp to its
// arrival here.
#ifndef HEADRACE_BENCH_LOAD_H
#define HEADRACE_BENCH_LOAD_H
#include "common.h"
#include <getopt.h>

// Values in microseconds, kept to 0.8 %.
#define FINE 7
#define SLOTS ((65 - FINE) << FINE)
typedef struct {
    uint64_t slots[SLOTS], count;
    double sum;
    uint64_t most;
} Spread;

static void note(Spread *s, uint64_t ns) {
    uint64_t us = ns / 1000;
    int shift = us >> FINE ? 63 - __builtin_clzll(us) - FINE : -1;
    size_t slot = shift < 0 ? us : ((size_t)(shift + 1) << FINE) + (us >> shift) - (1 << FINE);
    s->slots[slot]++;
    s->count++;
    s->sum += (double)us;
    if (us > s->most) s->most = us;
}

static double quantile_ms(const Spread *s, double q) {
    uint64_t seen = 0, want = (uint64_t)(q * (double)s->count);
    for (size_t slot = 0; slot < SLOTS; slot++) {
        seen += s->slots[slot];
        if (seen > want) {
            int shift = (int)(slot >> FINE) - 1;
            if (shift < 0) return (double)slot / 1000;
            return (double)(((slot & ((1 << FINE) - 1)) + (1 << FINE)) << shift) / 1000;
        }
    }
    return (double)s->most / 1000;
}

static void print_spread(const char *name, const Spread *s) {
    if (!s->count) {
        printf("\"%s\":null,", name);
        return;
    }
    printf("\"%s\":{\"n\":%llu,\"mean\":%.3f,\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"p999\":%.3f,\"max\":%.3f},", name,
           (unsigned long long)s->count, s->sum / (double)s->count / 1000, quantile_ms(s, .5), quantile_ms(s, .9),
           quantile_ms(s, .99), quantile_ms(s, .999), (double)s->most / 1000);
}

typedef struct {
    const char *host, *path, *body, *record;
    int port, connections, channels;
    double seconds, rate, ramp, warm, timeout;
    long requests, expect;
    bool unstamped;
} Options;

// One answer: when it was asked for, when its first and its last token came.
typedef struct {
    uint64_t began, first, last;
    long tokens;
} Answer;

static Options options = {
    .host = "127.0.0.1", .path = "/v1/chat/completions", .connections = 1, .channels = 1, .seconds = 5, .timeout = 60};
static Buffer headers;  // lines, as they were given
static long begun, finished_well, failed, refused, incomplete, tokens, messages, cut;
static uint64_t bytes, start, warm_until, end_at;
static int active, peak;
static struct sockaddr_in address;
static char first_error[400];
static Spread latency, first_token, delay, first_delay, gap;
static int *idle, idle_count;  // who waits to begin, in the open loop

// Of each load generator: the one with this number asks. `due` is when it should.
static void begin(int number, uint64_t due);

static void complain(const char *what, const char *detail) {
    if (!first_error[0]) snprintf(first_error, sizeof first_error, "%s: %.300s", what, detail ? detail : "");
}

// `stamp`: 0 without one.
static void take_token(Answer *a, uint64_t stamp, uint64_t now) {
    tokens++;
    a->tokens++;
    bool counted = now >= warm_until;
    if (counted && !a->first) note(&first_token, now - a->began);
    if (counted && a->first) note(&gap, now - a->last);
    if (counted && stamp && now > stamp) {
        note(&delay, now - stamp);
        if (!a->first) note(&first_delay, now - stamp);
    }
    if (!a->first) a->first = now;
    a->last = now;
}

// Takes the stamps in a message.
static void take_stamps(Answer *a, const char *data, size_t length, uint64_t now) {
    const char *end = data + length;
    for (const char *at = data; (at = memmem(at, (size_t)(end - at), " T", 2)) && at + STAMP_LENGTH <= end; at += 2) {
        uint64_t stamp = read_stamp(at);
        if (stamp) take_token(a, stamp, now);
    }
}

static bool timed(void) { return options.rate > 0 || options.ramp > 0; }

static bool is_more(uint64_t now) { return now < end_at && (!options.requests || begun < options.requests); }

// An answer is over: in the closed loop the next one begins, in the open loop its asker waits for its turn.
static void go_on(int number, uint64_t now) {
    if (options.rate > 0) idle[idle_count++] = number;
    else if (options.ramp <= 0 && is_more(now)) begin(number, now);
}

// Begins what is due now. False: everything is over.
static bool keep_going(uint64_t now) {
    double elapsed = (double)(now - start) / 1e9;
    if (options.ramp > 0) {
        while (begun < options.connections && elapsed * options.ramp >= (double)begun) begin((int)begun, now);
        return (begun < options.connections || active) && elapsed < options.seconds + options.timeout;
    }
    if (options.rate > 0) {
        while (idle_count && is_more(now) && (double)begun <= elapsed * options.rate)
            begin(idle[--idle_count], start + (uint64_t)((double)begun / options.rate * 1e9));
        return (is_more(now) || active) && elapsed < options.seconds + options.timeout;
    }
    if (options.requests) return finished_well + failed < options.requests && elapsed < options.seconds + options.timeout;
    return now < end_at;
}

static void find_address(void) {
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    inet_pton(AF_INET, options.host, &address.sin_addr);
}

static void begin_pace(void) {
    idle = calloc((size_t)options.connections, sizeof *idle);
    start = now_ns();
    warm_until = start + (uint64_t)(options.warm * 1e9);
    end_at = start + (uint64_t)(options.seconds * 1e9);
    if (options.rate > 0)
        for (int i = options.connections; i-- > 0;) idle[idle_count++] = i;
    if (!timed())
        for (int i = 0; i < options.connections && (!options.requests || begun < options.requests); i++) begin(i, start);
}

static void report(void) {
    double seconds = (double)(now_ns() - start) / 1e9;
    printf("{\"seconds\":%.3f,\"begun\":%ld,\"ok\":%ld,\"failed\":%ld,\"refused\":%ld,\"incomplete\":%ld,\"cut\":%ld,", seconds,
           begun, finished_well, failed, refused, incomplete, cut);
    printf("\"requests_per_s\":%.1f,\"tokens\":%ld,\"messages\":%ld,\"tokens_per_s\":%.1f,\"bytes\":%llu,\"peak\":%d,",
           (double)finished_well / seconds, tokens, messages, (double)tokens / seconds, (unsigned long long)bytes, peak);
    print_spread("latency", &latency);
    print_spread("first_token", &first_token);
    print_spread("gap", &gap);
    print_spread("delay", &delay);
    print_spread("first_delay", &first_delay);
    printf("\"error\":\"");
    for (char *at = first_error; *at; at++) {
        if (*at == '"' || *at == '\\') printf("\\%c", *at);
        else putchar((unsigned char)*at < 32 ? ' ' : *at);
    }
    printf("\"}\n");
}

static void parse(int argc, char **argv) {
    enum { HOST = 1, PORT, PATH, BODY_FILE, HEADER, CONNECTIONS, CHANNELS, SECONDS, RATE, RAMP, WARM, TIMEOUT, REQUESTS, RECORD, EXPECT, UNSTAMPED };
    static const struct option names[] = {
        {"host", 1, 0, HOST}, {"port", 1, 0, PORT}, {"path", 1, 0, PATH}, {"body", 1, 0, BODY_FILE}, {"header", 1, 0, HEADER},
        {"connections", 1, 0, CONNECTIONS}, {"channels", 1, 0, CHANNELS}, {"seconds", 1, 0, SECONDS}, {"rate", 1, 0, RATE},
        {"ramp", 1, 0, RAMP}, {"warm", 1, 0, WARM}, {"timeout", 1, 0, TIMEOUT}, {"requests", 1, 0, REQUESTS},
        {"record", 1, 0, RECORD}, {"expect", 1, 0, EXPECT}, {"unstamped", 0, 0, UNSTAMPED}, {0}};
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) switch (option) {
        case HOST: options.host = optarg; break;
        case PORT: options.port = atoi(optarg); break;
        case PATH: options.path = optarg; break;
        case BODY_FILE: options.body = optarg; break;
        case HEADER: append_text(&headers, optarg); append_text(&headers, "\r\n"); break;
        case CONNECTIONS: options.connections = atoi(optarg); break;
        case CHANNELS: options.channels = atoi(optarg); break;
        case SECONDS: options.seconds = atof(optarg); break;
        case RATE: options.rate = atof(optarg); break;
        case RAMP: options.ramp = atof(optarg); break;
        case WARM: options.warm = atof(optarg); break;
        case TIMEOUT: options.timeout = atof(optarg); break;
        case REQUESTS: options.requests = atol(optarg); break;
        case RECORD: options.record = optarg; break;
        case EXPECT: options.expect = atol(optarg); break;
        case UNSTAMPED: options.unstamped = true; break;
        default: exit(2);
    }
    if (!options.body || !options.port) {
        fprintf(stderr, "load: --port and --body are needed\n");
        exit(2);
    }
}
#endif
