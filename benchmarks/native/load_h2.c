// A load generator for gRPC and gRPC-Web over HTTP/2 without TLS: one thread, calls share connections. Prints
// one JSON object.
//
//   load_h2 --port P --body FILE --path /package.Service/Method --header 'content-type: application/grpc' …
//   --connections N  calls under way at once, over --channels N connections (load.h has the rest)
//   --expect N       tokens that a whole answer has
//   --unstamped      every message is a token, not only those with a stamp
//
// FILE has the one message of a call. It reads what it must of HTTP/2 (RFC 9113), and no trailers: an answer is
// good if its stream ended and all tokens were there.
#include "load.h"

enum { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8 };
#define WINDOW 0x7fffffffu
#define DEFAULT_WINDOW 65535

typedef struct {
    int number;
    Answer answer;
    Buffer rest;  // of a message that is not complete
} Call;

typedef struct {
    int fd;
    bool ready, blocked;
    long window, taken;  // what may be sent; what was received since the last window update
    uint32_t next_stream;
    Call **calls;  // by stream / 2
    size_t room, out_sent;
    Buffer in, out;
} Channel;

static Channel *channels;
static Call *calls;
static Buffer message, first_block, later_block;
static int poll_fd;

static void append_byte(Buffer *b, int byte) {
    char one = (char)byte;
    append(b, &one, 1);
}

static void append_u32(Buffer *b, uint32_t value) {
    uint32_t wire = htonl(value);
    append(b, (char *)&wire, 4);
}

static void append_frame(Buffer *b, int kind, int flags, uint32_t stream, const char *data, size_t length) {
    append_u32(b, (uint32_t)length << 8 | (uint32_t)kind);
    append_byte(b, flags);
    append_u32(b, stream);
    append(b, data, length);
}

static uint32_t read_u32(const char *at) {
    uint32_t wire;
    memcpy(&wire, at, 4);
    return ntohl(wire);
}

// HPACK (RFC 7541): the first request of a connection puts every field into the table, later ones point there.
static void append_string(Buffer *b, const char *text, size_t length) {
    if (length < 127) {
        append_byte(b, (int)length);
    } else {
        size_t rest = length - 127;
        append_byte(b, 127);
        for (; rest >= 128; rest >>= 7) append_byte(b, (int)(rest & 127) | 128);
        append_byte(b, (int)rest);
    }
    append(b, text, length);
}

static int fields;

static void add_field(int index, const char *name, size_t name_length, const char *value, size_t length) {
    append_byte(&first_block, 0x40 | index);
    if (!index) append_string(&first_block, name, name_length);
    append_string(&first_block, value, length);
    fields++;
}

static void build_blocks(void) {
    static const char fixed[] = {(char)0x83, (char)0x86};  // :method POST, :scheme http
    append(&first_block, fixed, 2);
    append(&later_block, fixed, 2);
    add_field(4, NULL, 0, options.path, strlen(options.path));
    add_field(1, NULL, 0, options.host, strlen(options.host));
    for (char *line = headers.data; line && *line;) {
        char *colon = strchr(line, ':'), *end = strstr(line, "\r\n"), *value = colon + 1;
        for (char *at = line; at < colon; at++) *at |= 32 * (*at >= 'A' && *at <= 'Z');
        while (*value == ' ') value++;
        add_field(0, line, (size_t)(colon - line), value, (size_t)(end - value));
        line = end + 2;
    }
    for (int i = 0; i < fields; i++) append_byte(&later_block, 0x80 | (61 + fields - i));
}

static void flush_out(Channel *ch) {
    while (ch->out_sent < ch->out.length) {
        ssize_t n = send(ch->fd, ch->out.data + ch->out_sent, ch->out.length - ch->out_sent, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN && !ch->blocked) watch(poll_fd, EPOLL_CTL_MOD, ch->fd, ch, ch->blocked = true);
            return;  // any other error shows when the socket is read
        }
        ch->out_sent += (size_t)n;
    }
    ch->out.length = ch->out_sent = 0;
    if (ch->blocked) watch(poll_fd, EPOLL_CTL_MOD, ch->fd, ch, ch->blocked = false);
}

static void begin(int number, uint64_t due) {
    Channel *ch = &channels[number % options.channels];
    Call *call = &calls[number];
    uint32_t stream = ch->next_stream;
    const Buffer *block = stream == 1 ? &first_block : &later_block;
    ch->next_stream += 2;
    ch->window -= (long)message.length;
    if (ch->window < 0) {
        fprintf(stderr, "load_h2: the server's window is too small for so many calls at once\n");
        exit(1);
    }
    begun++;
    if (++active > peak) peak = active;
    call->answer = (Answer){.began = due};
    call->rest.length = 0;
    if (stream / 2 >= ch->room) {
        ch->room = ch->room ? ch->room * 2 : 1024;
        ch->calls = realloc(ch->calls, ch->room * sizeof *ch->calls);
    }
    ch->calls[stream / 2] = call;
    append_frame(&ch->out, HEADERS, END_HEADERS, stream, block->data, block->length);
    append_frame(&ch->out, DATA, END_STREAM, stream, message.data, message.length);
    flush_out(ch);
}

static void finish(Channel *ch, uint32_t stream, uint64_t now, const char *trouble) {
    Call *call = ch->calls[stream / 2];
    ch->calls[stream / 2] = NULL;
    active--;
    if (!trouble && call->answer.tokens < options.expect) {
        incomplete++;
        trouble = "the stream ended too early";
    }
    if (trouble) {
        failed++;
        complain("call", trouble);
    } else {
        finished_well++;
        if (now >= warm_until) note(&latency, now - call->answer.began);
    }
    go_on(call->number, now);
}

// Takes the whole messages of `data`; returns the length of what is left.
static size_t take_messages(Call *call, const char *data, size_t length, uint64_t now) {
    while (length >= 5) {
        size_t size = read_u32(data + 1);
        if (length < 5 + size) break;
        if (!(*data & 0x80)) {  // those are trailers of gRPC-Web
            messages++;
            if (options.unstamped) take_token(&call->answer, 0, now);
            else take_stamps(&call->answer, data + 5, size, now);
        }
        data += 5 + size;
        length -= 5 + size;
    }
    return length;
}

static void take_data(Call *call, const char *data, size_t length, uint64_t now) {
    bytes += length;
    if (call->rest.length) {
        append(&call->rest, data, length);
        size_t left = take_messages(call, call->rest.data, call->rest.length, now);
        drop_front(&call->rest, call->rest.length - left);
    } else {
        size_t left = take_messages(call, data, length, now);
        if (left) append(&call->rest, data + length - left, left);
    }
}

static void take_frame(Channel *ch, const char *at, size_t size, uint64_t now) {
    int kind = at[3], flags = at[4];
    uint32_t stream = read_u32(at + 5) & WINDOW;
    const char *data = at + 9;
    Call *call = stream && stream / 2 < ch->room && stream < ch->next_stream ? ch->calls[stream / 2] : NULL;
    if (kind == DATA) {
        ch->taken += (long)size;
        if (call && flags & PADDED) take_data(call, data + 1, size - 1 - (uint8_t)data[0], now);
        else if (call) take_data(call, data, size, now);
    } else if (kind == SETTINGS && !(flags & ACK)) {
        ch->ready = true;
        append_frame(&ch->out, SETTINGS, ACK, 0, "", 0);
    } else if (kind == PING && !(flags & ACK)) {
        append_frame(&ch->out, PING, ACK, 0, data, 8);
    } else if (kind == WINDOW_UPDATE && !stream) {
        ch->window += read_u32(data);
    } else if (kind == GOAWAY) {
        complain("the server", "says that it leaves");
    } else if (kind == RST_STREAM && call) {
        finish(ch, stream, now, "the server reset the stream");
    }
    if ((kind == DATA || kind == HEADERS) && flags & END_STREAM && call) finish(ch, stream, now, NULL);
}

static void take_frames(Channel *ch) {
    uint64_t now = now_ns();
    size_t at = 0;
    while (ch->in.length - at >= 9) {
        size_t size = read_u32(ch->in.data + at) >> 8;
        if (ch->in.length - at < 9 + size) break;
        take_frame(ch, ch->in.data + at, size, now);
        at += 9 + size;
    }
    drop_front(&ch->in, at);
    if (ch->taken > 1 << 28) {
        uint32_t more = htonl((uint32_t)ch->taken);
        append_frame(&ch->out, WINDOW_UPDATE, 0, 0, (char *)&more, 4);
        ch->taken = 0;
    }
    flush_out(ch);
}

static void serve(Channel *ch, uint32_t events) {
    if (events & EPOLLOUT) flush_out(ch);
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR))) return;
    reserve(&ch->in, 1 << 18);
    ssize_t n = recv(ch->fd, ch->in.data + ch->in.length, ch->in.capacity - ch->in.length - 1, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        fprintf(stderr, "load_h2: the server closed the connection\n");
        exit(1);
    }
    ch->in.length += (size_t)n;
    take_frames(ch);
}

static void run(void) {
    static struct epoll_event events[256];
    while (keep_going(now_ns())) {
        int n = epoll_wait(poll_fd, events, 256, timed() ? 1 : 20);
        for (int i = 0; i < n; i++) serve(events[i].data.ptr, events[i].events);
    }
    cut = active;
}

// Connects, and waits for the server's settings.
static void open_channel(Channel *ch) {
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    static const char settings[] = {0, 2, 0, 0, 0, 0, 0, 4, 0x7f, (char)255, (char)255, (char)255};  // no push; window
    uint32_t more = htonl(WINDOW - DEFAULT_WINDOW);
    int on = 1;
    struct epoll_event event;
    ch->fd = socket(AF_INET, SOCK_STREAM, 0);
    ch->window = DEFAULT_WINDOW;
    ch->next_stream = 1;
    setsockopt(ch->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(ch->fd, (void *)&address, sizeof address)) {
        perror("load_h2: connect");
        exit(1);
    }
    fcntl(ch->fd, F_SETFL, O_NONBLOCK);
    watch(poll_fd, EPOLL_CTL_ADD, ch->fd, ch, false);
    append(&ch->out, preface, sizeof preface - 1);
    append_frame(&ch->out, SETTINGS, 0, 0, settings, sizeof settings);
    append_frame(&ch->out, WINDOW_UPDATE, 0, 0, (char *)&more, 4);
    flush_out(ch);
    while (!ch->ready)
        if (epoll_wait(poll_fd, &event, 1, 5000) == 1) serve(event.data.ptr, event.events);
}

static void read_message(void) {
    FILE *file = fopen(options.body, "r");
    char data[4096];
    size_t n;
    if (!file) {
        perror(options.body);
        exit(2);
    }
    append(&message, "\0\0\0\0\0", 5);
    while ((n = fread(data, 1, sizeof data, file))) append(&message, data, n);
    uint32_t size = htonl((uint32_t)message.length - 5);
    memcpy(message.data + 1, &size, 4);
    fclose(file);
}

int main(int argc, char **argv) {
    parse(argc, argv);
    read_message();
    build_blocks();
    poll_fd = epoll_create1(0);
    calls = calloc((size_t)options.connections, sizeof *calls);
    for (int i = 0; i < options.connections; i++) calls[i].number = i;
    channels = calloc((size_t)options.channels, sizeof *channels);
    find_address();
    for (int i = 0; i < options.channels; i++) open_channel(&channels[i]);
    begin_pace();
    run();
    report();
    return 0;
}
