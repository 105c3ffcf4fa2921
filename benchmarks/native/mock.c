// A mock engine: OpenAI-compatible, one thread, fast enough never to be what is measured.
//
//   mock PORT             0 takes a free port; prints "listening PORT"
//   GET /config?first_ms=200&gap_ms=1000&tokens=64&body=1024     sets what is named, resets the counts
//   GET /stats            what it did since; GET /aborted: [mark, ns] of each request given up by its client
//   GET /v1/models        and 200 for any other GET
//   POST anything         a chat completion: SSE if the body says "stream": true, else JSON of `body` bytes;
//                         of …/v1/completions its stream has the form of completions
//
// Tokens are stamps (common.h). "max_tokens" of the body wins over `tokens`. A number after "mark:" in
// the body names the request in /aborted.
#include "common.h"

typedef struct Client {
    int fd;
    Buffer in, out;
    size_t out_sent;
    bool active, stream, chat, usage, blocked, head_sent;
    long tokens, sent, mark;
    double gap_ms;
    uint64_t due;
    int place;  // in the timer heap, -1 if not there
} Client;

typedef struct {
    double first_ms, gap_ms;
    long tokens, body;
} Config;

typedef struct {
    long mark;
    uint64_t at;
} Aborted;

#define MAX_ABORTED 100000
static Config config = {0, 0, 64, 1024};
static uint64_t requests, tokens_sent, connections, aborts, active_now, active_peak;
static Aborted *aborted;
static int poll_fd;

// The timer heap: the client whose next token is due first is at 0.
static Client **heap;
static int heap_length, heap_capacity;

static void place(int i, Client *c) {
    heap[i] = c;
    c->place = i;
}

static void sift(int i) {
    Client *c = heap[i];
    while (i > 0 && heap[(i - 1) / 2]->due > c->due) {
        place(i, heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    for (;;) {
        int child = 2 * i + 1;
        if (child >= heap_length) break;
        if (child + 1 < heap_length && heap[child + 1]->due < heap[child]->due) child++;
        if (heap[child]->due >= c->due) break;
        place(i, heap[child]);
        i = child;
    }
    place(i, c);
}

static void schedule(Client *c, uint64_t due) {
    if (heap_length == heap_capacity) {
        heap_capacity = heap_capacity ? heap_capacity * 2 : 1024;
        heap = realloc(heap, sizeof *heap * (size_t)heap_capacity);
    }
    c->due = due;
    place(heap_length++, c);
    sift(c->place);
}

static void unschedule(Client *c) {
    int i = c->place;
    if (i < 0) return;
    c->place = -1;
    Client *last = heap[--heap_length];
    if (last != c) {
        place(i, last);
        sift(i);
    }
}

static void set_active(Client *c, bool active) {
    if (c->active == active) return;
    c->active = active;
    active_now += active ? 1 : -1;
    if (active_now > active_peak) active_peak = active_now;
}

static void close_client(Client *c) {
    if (c->active) {
        if (aborts < MAX_ABORTED) aborted[aborts] = (Aborted){c->mark, now_ns()};
        aborts++;
    }
    set_active(c, false);
    unschedule(c);
    close(c->fd);
    release(&c->in);
    release(&c->out);
    free(c);
}

// Sends what is queued. False: the client is gone.
static bool flush_out(Client *c) {
    while (c->out_sent < c->out.length) {
        ssize_t n = send(c->fd, c->out.data + c->out_sent, c->out.length - c->out_sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            if (!c->blocked) watch(poll_fd, EPOLL_CTL_MOD, c->fd, c, true);
            c->blocked = true;
            return true;
        }
        if (n < 0) return false;
        c->out_sent += (size_t)n;
    }
    c->out.length = c->out_sent = 0;
    if (c->blocked) watch(poll_fd, EPOLL_CTL_MOD, c->fd, c, false);
    c->blocked = false;
    return true;
}

static void append_chunk(Buffer *out, const char *data, size_t length) {
    char size[24];
    append(out, size, (size_t)sprintf(size, "%zx\r\n", length));
    append(out, data, length);
    append_text(out, "\r\n");
}

static const char CHUNK_HEAD[] =
    "data: {\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,"
    "\"model\":\"mock\",\"choices\":[{\"index\":0,\"delta\":{";

static const char COMPLETION_HEAD[] =
    "data: {\"id\":\"cmpl-mock\",\"object\":\"text_completion\",\"created\":1790000000,\"model\":\"mock\","
    "\"choices\":[{\"index\":0,\"text\":\"";

static void append_token(Client *c) {
    char event[400], stamp[STAMP_LENGTH + 1] = {0};
    write_stamp(stamp, now_ns());
    int n = c->chat ? sprintf(event, "%s%s\"content\":\"%s\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
                              CHUNK_HEAD, c->sent ? "" : "\"role\":\"assistant\",", stamp)
                    : sprintf(event, "%s%s\",\"logprobs\":null,\"finish_reason\":null}]}\n\n", COMPLETION_HEAD, stamp);
    append_chunk(&c->out, event, (size_t)n);
    c->sent++;
    tokens_sent++;
}

static void append_end(Client *c) {
    char event[400];
    int n = sprintf(event, "%s%s,\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n", c->chat ? CHUNK_HEAD : COMPLETION_HEAD,
                    c->chat ? "}" : "\"");
    append_chunk(&c->out, event, (size_t)n);
    if (c->usage) {
        n = sprintf(event,
                    "data: {\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,"
                    "\"model\":\"mock\",\"choices\":[],\"usage\":{\"prompt_tokens\":128,\"completion_tokens\":%ld,"
                    "\"total_tokens\":%ld}}\n\n", c->tokens, c->tokens + 128);
        append_chunk(&c->out, event, (size_t)n);
    }
    append_chunk(&c->out, "data: [DONE]\n\n", 14);
    append_text(&c->out, "0\r\n\r\n");
    set_active(c, false);
}

// One token, and the end behind the last one. False: the client is gone.
static bool next_token(Client *c) {
    if (!c->head_sent) {
        append_text(&c->out, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                             "cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n");
        c->head_sent = true;
    }
    if (c->sent < c->tokens) append_token(c);
    if (c->sent >= c->tokens) append_end(c);
    return flush_out(c);
}

static bool answer_json(Client *c, const char *body, size_t length) {
    char head[160];
    append(&c->out, head, (size_t)sprintf(head, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                                                "content-length: %zu\r\n\r\n", length));
    append(&c->out, body, length);
    return flush_out(c);
}

static bool answer_completion(Client *c) {
    static const char head[] =
        "{\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion\",\"created\":1790000000,\"model\":\"mock\","
        "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"";
    char tail[240];
    int tail_length = sprintf(tail, "\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":128,"
                                    "\"completion_tokens\":%ld,\"total_tokens\":%ld}}", c->tokens, c->tokens + 128);
    long padding = config.body - (long)sizeof head + 1 - tail_length;
    Buffer body = {0};
    append_text(&body, head);
    for (long i = 0; i < padding || i < 1; i++) append(&body, i % 6 == 5 ? " " : &"abcdefghij"[i % 10], 1);
    append_text(&body, tail);
    set_active(c, false);
    bool alive = answer_json(c, body.data, body.length);
    release(&body);
    return alive;
}

static void number_after(const char *text, const char *key, double *value) {
    const char *at = strstr(text, key);
    if (at) *value = atof(at + strlen(key));
}

static void configure(const char *query) {
    double tokens = (double)config.tokens, body = (double)config.body;
    number_after(query, "first_ms=", &config.first_ms);
    number_after(query, "gap_ms=", &config.gap_ms);
    number_after(query, "tokens=", &tokens);
    number_after(query, "body=", &body);
    config.tokens = (long)tokens;
    config.body = (long)body;
    requests = tokens_sent = aborts = 0;
    active_peak = active_now;
}

static bool answer_get(Client *c, const char *target) {
    Buffer body = {0};
    char text[400];
    if (!strncmp(target, "/config", 7)) configure(target);
    if (!strncmp(target, "/aborted", 8)) {
        append_text(&body, "[");
        for (uint64_t i = 0; i < aborts && i < MAX_ABORTED; i++) {
            sprintf(text, "%s[%ld,%llu]", i ? "," : "", aborted[i].mark, (unsigned long long)aborted[i].at);
            append_text(&body, text);
        }
        append_text(&body, "]");
    } else if (!strncmp(target, "/v1/models", 10)) {
        append_text(&body, "{\"object\":\"list\",\"data\":[{\"id\":\"mock\",\"object\":\"model\",\"created\":1790000000,\"owned_by\":\"mock\"}]}");
    } else {
        sprintf(text, "{\"status\":\"ok\",\"requests\":%llu,\"tokens\":%llu,\"connections\":%llu,\"aborts\":%llu,"
                      "\"active\":%llu,\"active_peak\":%llu,\"model_path\":\"mock\",\"model_id\":\"mock\",\"is_generation\":true}",
                (unsigned long long)requests, (unsigned long long)tokens_sent, (unsigned long long)connections,
                (unsigned long long)aborts, (unsigned long long)active_now, (unsigned long long)active_peak);
        append_text(&body, text);
    }
    bool alive = answer_json(c, body.data, body.length);
    release(&body);
    return alive;
}

// The value of "key": in a JSON body, skipping blanks; NULL if it is not there.
static const char *json_value(const char *body, const char *key) {
    const char *at = strstr(body, key);
    if (!at) return NULL;
    at += strlen(key);
    while (*at == ' ' || *at == ':') at++;
    return at;
}

static bool start_completion(Client *c, const char *target, const char *body) {
    const char *stream = json_value(body, "\"stream\""), *tokens = json_value(body, "\"max_tokens\"");
    const char *mark = strstr(body, "mark:"), *usage = json_value(body, "\"include_usage\"");
    if (!tokens) tokens = json_value(body, "\"max_completion_tokens\"");
    requests++;
    c->chat = strncmp(target, "/v1/completions", 15) != 0;
    c->stream = stream && *stream == 't';
    c->usage = usage && *usage == 't';
    c->tokens = tokens && *tokens > '0' && *tokens <= '9' ? atol(tokens) : config.tokens;
    c->mark = mark ? atol(mark + 5) : -1;
    c->sent = 0;
    c->head_sent = false;
    c->gap_ms = config.gap_ms;
    set_active(c, true);
    double wait_ms = config.first_ms + (c->stream ? 0 : config.gap_ms * (double)(c->tokens - 1));
    if (!c->stream && wait_ms <= 0) return answer_completion(c);
    schedule(c, wait_ms > 0 ? now_ns() + (uint64_t)(wait_ms * 1e6) : 0);
    return true;
}

// Decodes a chunked body at `from` into `body`; returns its wire length, 0 while it is incomplete.
static size_t decode_chunked(const char *from, size_t length, Buffer *body) {
    const char *at = from, *end = from + length;
    for (;;) {
        const char *line = memmem(at, (size_t)(end - at), "\r\n", 2);
        if (!line) return 0;
        long size = strtol(at, NULL, 16);
        at = line + 2;
        if (size < 0 || size > (1 << 24) || end - at < size + 2) return 0;
        append(body, at, (size_t)size);
        at += size + 2;
        if (size == 0) return (size_t)(at - from);
    }
}

// Answers the requests that are complete in `in`, one at a time. False: close the connection.
static bool take_requests(Client *c) {
    while (!c->active && c->in.length) {
        char *head_end = memmem(c->in.data, c->in.length, "\r\n\r\n", 4);
        if (!head_end) return c->in.length < 65536;
        *head_end = 0;
        char *length_at = strcasestr(c->in.data, "\r\ncontent-length:");
        bool chunked = strcasestr(c->in.data, "\r\ntransfer-encoding: chunked") != NULL;
        size_t body_length = length_at ? strtoul(length_at + 17, NULL, 10) : 0, taken;
        const char *body_at = head_end + 4;
        size_t here = c->in.length - (size_t)(body_at - c->in.data);
        Buffer body = {0};
        if (body_length > 1 << 24) return false;
        reserve(&body, body_length);
        if (chunked) {
            taken = decode_chunked(body_at, here, &body);
        } else {
            taken = here >= body_length ? body_length : 0;
            append(&body, body_at, taken);
        }
        if ((chunked && !taken) || (!chunked && here < body_length)) {
            *head_end = '\r';
            release(&body);
            return true;
        }
        bool get = !strncmp(c->in.data, "GET ", 4) || !strncmp(c->in.data, "HEAD ", 5);
        if (!get && strncmp(c->in.data, "POST ", 5)) { // HTTP/2, as who looks for gRPC says first
            release(&body);
            return false;
        }
        const char *target = strchr(c->in.data, ' ') + 1;
        bool alive = get ? answer_get(c, target) : start_completion(c, target, body.data);
        release(&body);
        if (!alive) return false;
        drop_front(&c->in, (size_t)(body_at - c->in.data) + taken);
    }
    if (!c->in.length) release(&c->in);
    return true;
}

static bool read_in(Client *c) {
    reserve(&c->in, 65536);
    ssize_t n = recv(c->fd, c->in.data + c->in.length, c->in.capacity - c->in.length - 1, 0);
    if (n < 0 && errno == EAGAIN) return true;
    if (n <= 0) return false;
    c->in.length += (size_t)n;
    c->in.data[c->in.length] = 0;
    return take_requests(c);
}

static void accept_all(int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        Client *c = calloc(1, sizeof *c);
        c->fd = fd;
        c->place = -1;
        connections++;
        watch(poll_fd, EPOLL_CTL_ADD, fd, c, false);
    }
}

// Gives one token to every client whose token is due. A client that cannot take more waits for its socket.
static void run_due(void) {
    static Client **again;
    static int again_capacity;
    uint64_t now = now_ns();
    int count = 0, most = heap_length;
    if (most > again_capacity) again = realloc(again, sizeof *again * (size_t)(again_capacity = most));
    while (heap_length && heap[0]->due <= now && most-- > 0) {
        Client *c = heap[0];
        uint64_t due = c->due ? c->due : now;
        unschedule(c);
        bool alive = c->stream ? next_token(c) : answer_completion(c);
        if (alive && !c->active) alive = take_requests(c);
        if (!alive) {
            close_client(c);
        } else if (c->active && c->place < 0 && !c->blocked) {
            c->due = c->gap_ms > 0 ? due + (uint64_t)(c->gap_ms * 1e6) : 0;
            again[count++] = c;
        }
    }
    for (int i = 0; i < count; i++) schedule(again[i], again[i]->due);
}

static void serve(Client *c, uint32_t events) {
    bool alive = true;
    if (events & EPOLLOUT) {
        alive = flush_out(c);
        if (alive && !c->blocked && c->active && c->stream && c->place < 0) schedule(c, 0);
    }
    if (alive && (events & (EPOLLIN | EPOLLHUP | EPOLLERR))) alive = read_in(c);
    if (!alive) close_client(c);
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof at;
    if (bind(fd, (void *)&at, sizeof at) || listen(fd, 4096)) {
        perror("mock");
        exit(1);
    }
    getsockname(fd, (void *)&at, &length);
    printf("listening %d\n", ntohs(at.sin_port));
    fflush(stdout);
    return fd;
}

int main(int argc, char **argv) {
    static struct epoll_event events[1024];
    raise_descriptor_limit();
    aborted = calloc(MAX_ABORTED, sizeof *aborted);
    poll_fd = epoll_create1(0);
    int listener = listen_on(argc > 1 ? atoi(argv[1]) : 0);
    watch(poll_fd, EPOLL_CTL_ADD, listener, NULL, false);
    for (;;) {
        struct timespec wait = {0}, *limit = NULL;
        if (heap_length) {
            uint64_t now = now_ns(), left = heap[0]->due > now ? heap[0]->due - now : 0;
            wait = (struct timespec){(time_t)(left / 1000000000ull), (long)(left % 1000000000ull)};
            limit = &wait;
        }
        int n = epoll_pwait2(poll_fd, events, 1024, limit, NULL);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr) serve(events[i].data.ptr, events[i].events);
            else accept_all(listener);
        }
        run_due();
    }
}
