// A load generator for OpenAI-compatible servers: one thread, keep-alive, SSE. Prints one JSON object.
//
//   load --port P --body FILE [--host H] [--path /v1/chat/completions] [--header 'K: V'] …
//     closed loop   --connections 64 --seconds 5         each connection asks again when it is answered
//     open loop     --connections 64 --seconds 5 --rate 100    latency counts from the time it was due
//     streams       --connections 9500 --ramp 1000       one request each, begun at 1,000 a second
//   --warm S     leave out what is measured in the first S seconds
//   --timeout S  give up S seconds after the end (default 60)
//   --requests N stop after N requests
//   An answer 429 is counted as `limited`, with how long it took; its connection is kept.
//   --record F   write every SSE message that arrived, for a check against the log: a line
//                "stream ID complete" and a line "seq crc32" a message (seq 0: it had no id)
//
// FILE has one JSON body a line, used in turn. A token is a stamp of the mock (common.h), or else a
// message with content. Times in milliseconds; `delay` is from the mock's stamp to its arrival here.
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

typedef enum { CLOSED, CONNECTING, SENDING, HEAD, BODY, IDLE } State;
typedef enum { NO_CHUNKS, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER } Chunking;

typedef struct {
    int fd, status;
    State state;
    Chunking chunking;
    const Buffer *request;
    size_t sent;
    long remaining;  // of the body, or of the chunk; -1: until the connection closes
    bool sse, close_after, done, complete, reused, retried;
    uint64_t began, first, last;
    long tokens, answered;
    Buffer head, line, record;
    char generation[64];
    unsigned long seq;
    uint32_t crc;
    bool has_data;
} Connection;

typedef struct {
    const char *host, *path, *body, *record;
    int port, connections;
    double seconds, rate, ramp, warm, timeout;
    long requests;
} Options;

static Options options = {.host = "127.0.0.1", .path = "/v1/chat/completions", .connections = 1, .seconds = 5, .timeout = 60};
static Buffer *requests, headers;
static long request_count, begun, finished_well, failed, refused, incomplete, tokens, messages, cut;
static uint64_t bytes, start, warm_until, end_at;
static int poll_fd, active, peak;
static struct sockaddr_in address;
static Connection *all;
static Connection **idle;
static int idle_count;
static char first_error[400];
static Spread latency, limited, first_token, delay, first_delay, gap;
static FILE *record_file;

static void complain(const char *what, const char *detail) {
    if (!first_error[0]) snprintf(first_error, sizeof first_error, "%s: %.300s", what, detail ? detail : "");
}

static void hang_up(Connection *c) {
    if (c->state != CLOSED) close(c->fd);
    c->state = CLOSED;
}

static void reset(Connection *c, uint64_t began) {
    c->sent = 0;
    c->status = 0;
    c->remaining = -1;
    c->chunking = NO_CHUNKS;
    c->sse = c->close_after = c->done = c->complete = false;
    c->began = began;
    c->first = c->last = 0;
    c->tokens = 0;
    c->head.length = c->line.length = c->record.length = 0;
    c->generation[0] = 0;
    c->seq = 0;
    c->crc = 0;
    c->has_data = false;
}

static void send_request(Connection *c) {
    while (c->sent < c->request->length) {
        ssize_t n = send(c->fd, c->request->data + c->sent, c->request->length - c->sent, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) watch(poll_fd, EPOLL_CTL_MOD, c->fd, c, true);
            return;  // any other error shows when the socket is read
        }
        c->sent += (size_t)n;
    }
    c->state = HEAD;
    watch(poll_fd, EPOLL_CTL_MOD, c->fd, c, false);
}

static bool connect_out(Connection *c) {
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) return false;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(c->fd, (void *)&address, sizeof address) && errno != EINPROGRESS) {
        close(c->fd);
        return false;
    }
    c->state = CONNECTING;
    c->reused = false;
    watch(poll_fd, EPOLL_CTL_ADD, c->fd, c, true);
    return true;
}

static void finish(Connection *c, bool well);

static void begin(Connection *c, uint64_t began) {
    if (!c->retried) c->request = &requests[begun++ % request_count];
    if (++active > peak) peak = active;
    reset(c, began);
    if (c->state == IDLE) {
        c->state = SENDING;
        c->reused = true;
        send_request(c);
    } else if (!connect_out(c)) {
        refused++;
        complain("connect", strerror(errno));
        finish(c, false);
    }
}

static void write_record(Connection *c) {
    fprintf(record_file, "stream %s %d\n", c->generation[0] ? c->generation : "-", c->done || (c->complete && !c->sse));
    fwrite(c->record.data, 1, c->record.length, record_file);
}

static void finish(Connection *c, bool well) {
    bool refused_by_limit = !well && c->status == 429 && !c->close_after;
    active--;
    c->answered++;
    c->retried = false;
    c->complete = well;
    if (well) {
        finished_well++;
        uint64_t now = now_ns();
        if (now >= warm_until) note(&latency, now - c->began);
    } else if (refused_by_limit) {
        note(&limited, now_ns() - c->began);
    } else {
        failed++;
        char status[16];
        sprintf(status, "status %d", c->status);
        complain(status, c->head.length ? c->head.data : "no answer");
    }
    if (record_file && c->head.length) write_record(c);
    if ((!well && !refused_by_limit) || c->close_after || options.ramp > 0) hang_up(c);
    else c->state = IDLE;
    if (options.rate > 0) idle[idle_count++] = c;
}

static void take_token(Connection *c, uint64_t stamp, uint64_t now) {
    tokens++;
    c->tokens++;
    bool counted = now >= warm_until;
    if (counted && !c->first) note(&first_token, now - c->began);
    if (counted && c->first) note(&gap, now - c->last);
    if (counted && stamp && now > stamp) {
        note(&delay, now - stamp);
        if (!c->first) note(&first_delay, now - stamp);
    }
    if (!c->first) c->first = now;
    c->last = now;
}

static bool has_content(const char *data) {
    for (const char *key = "\"content\":"; key; key = *key == '"' && key[1] == 'c' ? "\"text\":" : NULL) {
        const char *at = strstr(data, key);
        if (!at) continue;
        at += strlen(key);
        while (*at == ' ') at++;
        if (at[0] == '"' && at[1] != '"') return true;
    }
    return false;
}

static void take_data(Connection *c, const char *data, uint64_t now) {
    if (!strncmp(data, "[DONE]", 6)) {
        c->done = true;
        return;
    }
    messages++;
    long before = c->tokens;
    for (const char *at = data; (at = strstr(at, " T")); at += 2) {
        uint64_t stamp = read_stamp(at);
        if (stamp) take_token(c, stamp, now);
    }
    if (c->tokens == before && has_content(data)) take_token(c, 0, now);
    if (strstr(data, "\"error\":{")) complain("error event", data);
}

// CRC-32 as zlib has it, so that a reader in another language can compare.
static uint32_t crc32_of(uint32_t crc, const char *data, size_t length) {
    static uint32_t table[256];
    if (!table[1])
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t value = i;
            for (int bit = 0; bit < 8; bit++) value = value >> 1 ^ (value & 1 ? 0xedb88320u : 0);
            table[i] = value;
        }
    crc = ~crc;
    for (size_t i = 0; i < length; i++) crc = table[(crc ^ (unsigned char)data[i]) & 255] ^ crc >> 8;
    return ~crc;
}

// A blank line ends a message: keep its seq and the hash of its data.
static void end_message(Connection *c) {
    if (record_file && c->has_data) {
        char text[64];
        append(&c->record, text, (size_t)sprintf(text, "%lu %x\n", c->seq, c->crc));
    }
    c->seq = 0;
    c->crc = 0;
    c->has_data = false;
}

static void take_line(Connection *c, uint64_t now) {
    char *line = c->line.data;
    size_t length = c->line.length;
    if (length && line[length - 1] == '\r') line[--length] = 0;
    if (!length) end_message(c);
    else if (!strncmp(line, "id:", 3)) c->seq = strtoul(line + 3, NULL, 10);
    else if (!strncmp(line, "data:", 5)) {
        const char *data = line + 5 + (line[5] == ' ');
        if (record_file) c->crc = crc32_of(c->crc, data, length - (size_t)(data - line));
        c->has_data = true;
        take_data(c, data, now);
    }
}

static void complain_answer(Connection *c, const char *data, size_t length) {
    char what[32], text[300];
    snprintf(what, sizeof what, "status %d", c->status);
    snprintf(text, sizeof text, "%.*s", (int)(length < sizeof text ? length : sizeof text - 1), data);
    complain(what, text);
}

static void take_body(Connection *c, const char *data, size_t length, uint64_t now) {
    bytes += length;
    if (c->status != 200 && length) complain_answer(c, data, length);
    if (!c->sse) return;
    const char *end = data + length;
    while (data < end) {
        const char *newline = memchr(data, '\n', (size_t)(end - data));
        append(&c->line, data, (size_t)((newline ? newline : end) - data));
        if (!newline) return;
        take_line(c, now);
        c->line.length = 0;
        data = newline + 1;
    }
}

static const char *header(const char *head, const char *name) {
    const char *at = strcasestr(head, name);
    if (!at) return NULL;
    at += strlen(name);
    while (*at == ' ') at++;
    return at;
}

// Takes the head once it is complete; returns how many bytes of `data` belong to it, 0 while it is not.
static size_t take_head(Connection *c, const char *data, size_t length) {
    size_t before = c->head.length;
    append(&c->head, data, length);
    char *end = memmem(c->head.data, c->head.length, "\r\n\r\n", 4);
    if (!end) return 0;
    *end = 0;
    c->head.length = (size_t)(end - c->head.data);
    const char *value;
    sscanf(c->head.data, "HTTP/1.%*d %d", &c->status);
    if ((value = header(c->head.data, "\r\ncontent-length:"))) c->remaining = atol(value);
    if ((value = header(c->head.data, "\r\ntransfer-encoding:"))) c->chunking = strncasecmp(value, "chunked", 7) ? NO_CHUNKS : CHUNK_SIZE;
    if ((value = header(c->head.data, "\r\nconnection:"))) c->close_after = !strncasecmp(value, "close", 5);
    if ((value = header(c->head.data, "\r\ncontent-type:"))) c->sse = !strncasecmp(value, "text/event-stream", 17);
    if ((value = header(c->head.data, "\r\nx-generation-id:"))) sscanf(value, "%63[^\r\n]", c->generation);
    c->state = BODY;
    return (size_t)(end + 4 - c->head.data) - before;
}

// Feeds received bytes. 1: the answer is complete, 0: not yet, -1: nonsense.
static int feed(Connection *c, const char *data, size_t length, uint64_t now) {
    if (c->state == HEAD) {
        size_t used = take_head(c, data, length);
        if (!used) return c->head.length > 65536 ? -1 : 0;
        data += used;
        length -= used;
    }
    if (c->chunking == NO_CHUNKS) {
        take_body(c, data, length, now);
        if (c->remaining >= 0) c->remaining -= (long)length;
        return c->remaining == 0;
    }
    const char *end = data + length;
    while (data < end) {
        if (c->chunking == CHUNK_DATA) {
            size_t n = (size_t)(end - data) < (size_t)c->remaining ? (size_t)(end - data) : (size_t)c->remaining;
            take_body(c, data, n, now);
            data += n;
            c->remaining -= (long)n;
            if (!c->remaining) c->chunking = CHUNK_END;
            continue;
        }
        // The framing lines: kept in `head`, whose text is not needed any more.
        if (c->chunking == CHUNK_SIZE && c->remaining != -2) {
            c->remaining = -2;
            c->head.length = 1;
        }
        char byte = *data++;
        if (byte != '\n') {
            if (byte != '\r') append(&c->head, &byte, 1);
            continue;
        }
        if (c->chunking == CHUNK_END) {
            c->chunking = CHUNK_SIZE;
            c->remaining = -1;
        } else if (c->chunking == TRAILER) {
            if (c->head.length == 1) return 1;
            c->head.length = 1;
        } else {
            c->head.data[c->head.length] = 0;
            c->remaining = strtol(c->head.data + 1, NULL, 16);
            c->chunking = c->remaining ? CHUNK_DATA : TRAILER;
            c->head.length = 1;
        }
    }
    return 0;
}

static bool answered_well(Connection *c) {
    if (c->status != 200) return false;
    if (!c->sse) return true;
    if (!c->done) incomplete++;
    return c->done && c->tokens > 0;
}

static void next(Connection *c, uint64_t now) {
    bool more = !options.requests || begun < options.requests;
    if (options.rate <= 0 && options.ramp <= 0 && now < end_at && more) begin(c, now);
}

static void closed_by_server(Connection *c, uint64_t now) {
    if (c->state == IDLE) {
        hang_up(c);
    } else if (c->reused && !c->retried && (c->state == SENDING || (c->state == HEAD && !c->head.length))) {
        hang_up(c);  // a kept connection that the server closed in the same moment: ask once more
        active--;
        c->retried = true;
        begin(c, c->began);
    } else {
        bool well = c->state == BODY && c->chunking == NO_CHUNKS && c->remaining < 0 && answered_well(c);
        c->close_after = true;
        if (!well) complain("cut", c->state == BODY ? "in the body" : "before the head");
        finish(c, well);
        next(c, now);
    }
}

static void serve(Connection *c, uint32_t events) {
    static char data[1 << 18];
    uint64_t now = now_ns();
    if (c->state == CLOSED) return;
    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error) {
            refused++;
            complain("connect", strerror(error));
            finish(c, false);
            next(c, now);
            return;
        }
        c->state = SENDING;
        send_request(c);
        return;
    }
    if (c->state == SENDING && (events & EPOLLOUT)) send_request(c);
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR))) return;
    ssize_t n = recv(c->fd, data, sizeof data, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0 || c->state == IDLE) {
        closed_by_server(c, now);
        return;
    }
    int complete = feed(c, data, (size_t)n, now);
    if (!complete) return;
    if (complete < 0) c->close_after = true;
    finish(c, complete > 0 && answered_well(c));
    next(c, now);
}

// Begins what is due now. False: everything is over.
static bool keep_going(uint64_t now) {
    double elapsed = (double)(now - start) / 1e9;
    if (options.ramp > 0) {
        while (begun < options.connections && elapsed * options.ramp >= (double)begun) begin(&all[begun], now);
        return (begun < options.connections || active) && elapsed < options.seconds + options.timeout;
    }
    if (options.rate > 0) {
        while (now < end_at && idle_count && (double)begun <= elapsed * options.rate && (!options.requests || begun < options.requests))
            begin(idle[--idle_count], start + (uint64_t)((double)begun / options.rate * 1e9));
        bool more = now < end_at && (!options.requests || begun < options.requests);
        return (more || active) && elapsed < options.seconds + options.timeout;
    }
    if (options.requests) return finished_well + failed + (long)limited.count < options.requests && elapsed < options.seconds + options.timeout;
    return now < end_at;
}

static void run(void) {
    static struct epoll_event events[2048];
    bool timed = options.rate > 0 || options.ramp > 0;
    if (options.rate > 0)
        for (int i = options.connections; i-- > 0;) idle[idle_count++] = &all[i];
    if (!timed)
        for (int i = 0; i < options.connections && (!options.requests || begun < options.requests); i++) begin(&all[i], start);
    while (keep_going(now_ns())) {
        int n = epoll_wait(poll_fd, events, 2048, timed ? 1 : 20);
        for (int i = 0; i < n; i++) serve(events[i].data.ptr, events[i].events);
    }
    cut = active;
    if (record_file)
        for (int i = 0; i < options.connections; i++)
            if (all[i].state == BODY) write_record(&all[i]);
}

static void read_requests(void) {
    FILE *file = fopen(options.body, "r");
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    if (!file) {
        perror(options.body);
        exit(2);
    }
    while ((length = getline(&line, &room, file)) > 1) {
        char head[600];
        if (line[length - 1] == '\n') length--;
        requests = realloc(requests, sizeof *requests * (size_t)(request_count + 1));
        Buffer *r = &requests[request_count++];
        *r = (Buffer){0};
        snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nhost: %s:%d\r\ncontent-type: application/json\r\naccept: */*\r\ncontent-length: %zd\r\n",
                 options.path, options.host, options.port, length);
        append_text(r, head);
        append(r, headers.data ? headers.data : "", headers.length);
        append_text(r, "\r\n");
        append(r, line, (size_t)length);
    }
    fclose(file);
    free(line);
}

static void report(double seconds) {
    printf("{\"seconds\":%.3f,\"begun\":%ld,\"ok\":%ld,\"failed\":%ld,\"refused\":%ld,\"incomplete\":%ld,\"cut\":%ld,", seconds,
           begun, finished_well, failed, refused, incomplete, cut);
    printf("\"requests_per_s\":%.1f,\"tokens\":%ld,\"messages\":%ld,\"tokens_per_s\":%.1f,\"bytes\":%llu,\"peak\":%d,",
           (double)finished_well / seconds, tokens, messages, (double)tokens / seconds, (unsigned long long)bytes, peak);
    print_spread("latency", &latency);
    print_spread("limited", &limited);
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
    enum { HOST = 1, PORT, PATH, BODY_FILE, HEADER, CONNECTIONS, SECONDS, RATE, RAMP, WARM, TIMEOUT, REQUESTS, RECORD };
    static const struct option names[] = {
        {"host", 1, 0, HOST}, {"port", 1, 0, PORT}, {"path", 1, 0, PATH}, {"body", 1, 0, BODY_FILE}, {"header", 1, 0, HEADER},
        {"connections", 1, 0, CONNECTIONS}, {"seconds", 1, 0, SECONDS}, {"rate", 1, 0, RATE}, {"ramp", 1, 0, RAMP},
        {"warm", 1, 0, WARM}, {"timeout", 1, 0, TIMEOUT}, {"requests", 1, 0, REQUESTS}, {"record", 1, 0, RECORD}, {0}};
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) switch (option) {
        case HOST: options.host = optarg; break;
        case PORT: options.port = atoi(optarg); break;
        case PATH: options.path = optarg; break;
        case BODY_FILE: options.body = optarg; break;
        case HEADER: append_text(&headers, optarg); append_text(&headers, "\r\n"); break;
        case CONNECTIONS: options.connections = atoi(optarg); break;
        case SECONDS: options.seconds = atof(optarg); break;
        case RATE: options.rate = atof(optarg); break;
        case RAMP: options.ramp = atof(optarg); break;
        case WARM: options.warm = atof(optarg); break;
        case TIMEOUT: options.timeout = atof(optarg); break;
        case REQUESTS: options.requests = atol(optarg); break;
        case RECORD: options.record = optarg; break;
        default: exit(2);
    }
    if (!options.body || !options.port) {
        fprintf(stderr, "load: --port and --body are needed\n");
        exit(2);
    }
}

int main(int argc, char **argv) {
    parse(argc, argv);
    raise_descriptor_limit();
    read_requests();
    if (!request_count) {
        fprintf(stderr, "load: no body in %s\n", options.body);
        return 2;
    }
    if (options.record) record_file = fopen(options.record, "w");
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    inet_pton(AF_INET, options.host, &address.sin_addr);
    all = calloc((size_t)options.connections, sizeof *all);
    idle = calloc((size_t)options.connections, sizeof(Connection *));
    poll_fd = epoll_create1(0);
    start = now_ns();
    warm_until = start + (uint64_t)(options.warm * 1e9);
    end_at = start + (uint64_t)(options.seconds * 1e9);
    run();
    report((double)(now_ns() - start) / 1e9);
    if (record_file) fclose(record_file);
    return 0;
}
