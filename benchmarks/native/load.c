// A load generator for OpenAI-compatible servers and for native streams: one thread, keep-alive, server-sent
// events or lines. Prints one JSON object.
//
//   load --port P --body FILE [--host H] [--path /v1/chat/completions] [--header 'K: V'] … (load.h has the rest)
//   --record F   write every SSE message that arrived, for a check against the log: a line
//                "stream ID complete" and a line "seq crc32" a message (seq 0: it had no id)
//
// FILE has one JSON body a line, used in turn. A message with content but without a stamp is a token too.
#include "load.h"

typedef enum { CLOSED, CONNECTING, SENDING, HEAD, BODY, IDLE } State;
typedef enum { NO_CHUNKS, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER } Chunking;

typedef struct {
    int fd, status;
    State state;
    Chunking chunking;
    const Buffer *request;
    size_t sent;
    long remaining;  // of the body, or of the chunk; -1: until the connection closes
    bool sse, lines, close_after, done, complete, reused, retried;
    Answer answer;
    long answered;
    Buffer head, line, record;
    char generation[64];
    unsigned long seq;
    uint32_t crc;
    bool has_data;
} Connection;

static Buffer *requests;
static long request_count;
static int poll_fd;
static Connection *all;
static FILE *record_file;

static void hang_up(Connection *c) {
    if (c->state != CLOSED) close(c->fd);
    c->state = CLOSED;
}

static void reset(Connection *c, uint64_t began) {
    c->sent = 0;
    c->status = 0;
    c->remaining = -1;
    c->chunking = NO_CHUNKS;
    c->sse = c->lines = c->close_after = c->done = c->complete = false;
    c->answer = (Answer){.began = began};
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

static void end(Connection *c, bool well);

static void ask(Connection *c, uint64_t began) {
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
        end(c, false);
        if (timed()) go_on((int)(c - all), began);
    }
}

static void begin(int number, uint64_t due) { ask(&all[number], due); }

static void write_record(Connection *c) {
    fprintf(record_file, "stream %s %d\n", c->generation[0] ? c->generation : "-", c->done || (c->complete && !c->sse && !c->lines));
    fwrite(c->record.data, 1, c->record.length, record_file);
}

static void end(Connection *c, bool well) {
    active--;
    c->answered++;
    c->retried = false;
    c->complete = well;
    if (well) {
        finished_well++;
        uint64_t now = now_ns();
        if (now >= warm_until) note(&latency, now - c->answer.began);
    } else {
        failed++;
        char status[16];
        sprintf(status, "status %d", c->status);
        complain(status, c->head.length ? c->head.data : "no answer");
    }
    if (record_file && c->head.length) write_record(c);
    if (!well || c->close_after || options.ramp > 0) hang_up(c);
    else c->state = IDLE;
}

static void finish(Connection *c, bool well) {
    end(c, well);
    go_on((int)(c - all), now_ns());
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

static void take_data(Connection *c, const char *data, size_t length, uint64_t now) {
    if (!strncmp(data, "[DONE]", 6)) {
        c->done = true;
        return;
    }
    messages++;
    long before = tokens;
    take_stamps(&c->answer, data, length, now);
    if (tokens == before && has_content(data)) take_token(&c->answer, 0, now);
    if (tokens == before && strstr(data, "\"type\":\"finish\"")) c->done = true;
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
    else if (c->lines) take_data(c, line, length, now);
    else if (!strncmp(line, "id:", 3)) c->seq = strtoul(line + 3, NULL, 10);
    else if (!strncmp(line, "data:", 5)) {
        const char *data = line + 5 + (line[5] == ' ');
        if (record_file) c->crc = crc32_of(c->crc, data, length - (size_t)(data - line));
        c->has_data = true;
        take_data(c, data, length - (size_t)(data - line), now);
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
    if (!c->sse && !c->lines) return;
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
    if ((value = header(c->head.data, "\r\ncontent-type:"))) {
        c->sse = !strncasecmp(value, "text/event-stream", 17);
        c->lines = !strncasecmp(value, "application/x-ndjson", 20);
    }
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
    if (!c->sse && !c->lines) return true;
    if (!c->done) incomplete++;
    return c->done && c->answer.tokens > 0;
}

static void closed_by_server(Connection *c) {
    if (c->state == IDLE) {
        hang_up(c);
    } else if (c->reused && !c->retried && (c->state == SENDING || (c->state == HEAD && !c->head.length))) {
        hang_up(c);  // a kept connection that the server closed in the same moment: ask once more
        active--;
        c->retried = true;
        ask(c, c->answer.began);
    } else {
        bool well = c->state == BODY && c->chunking == NO_CHUNKS && c->remaining < 0 && answered_well(c);
        c->close_after = true;
        if (!well) complain("cut", c->state == BODY ? "in the body" : "before the head");
        finish(c, well);
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
        closed_by_server(c);
        return;
    }
    int complete = feed(c, data, (size_t)n, now);
    if (!complete) return;
    if (complete < 0) c->close_after = true;
    finish(c, complete > 0 && answered_well(c));
}

static void run(void) {
    static struct epoll_event events[2048];
    while (keep_going(now_ns())) {
        int n = epoll_wait(poll_fd, events, 2048, timed() ? 1 : 20);
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
    const char *head_of_all = headers.data ? headers.data : "";
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
        snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nhost: %s:%d\r\ncontent-type: application/json\r\n%scontent-length: %zd\r\n",
                 options.path, options.host, options.port, header(head_of_all, "accept:") ? "" : "accept: */*\r\n", length);
        append_text(r, head);
        append_text(r, head_of_all);
        append_text(r, "\r\n");
        append(r, line, (size_t)length);
    }
    fclose(file);
    free(line);
}

int main(int argc, char **argv) {
    parse(argc, argv);
    read_requests();
    if (!request_count) {
        fprintf(stderr, "load: no body in %s\n", options.body);
        return 2;
    }
    if (options.record) record_file = fopen(options.record, "w");
    all = calloc((size_t)options.connections, sizeof *all);
    poll_fd = epoll_create1(0);
    raise_descriptor_limit();
    find_address();
    begin_pace();
    run();
    report();
    if (record_file) fclose(record_file);
    return 0;
}
