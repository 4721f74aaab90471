/* Load for a CoAP server on 127.0.0.1: so many peers, each with one confirmable request on its way.
 *
 *     coap_load PORT PEERS SECONDS edgerm [OPENING [PAUSE_S]]
 *     coap_load PORT PEERS SECONDS METHOD PATH
 *
 * With `edgerm` each peer opens a session with the frame OPENING (in hexadecimal; NAME in it is replaced by
 * the peer's name) and then exchanges heartbeats, PAUSE_S apart if that is given; otherwise it sends the same
 * two bytes to PATH with METHOD (a number). Prints `ready` when every peer has had an answer to a heartbeat,
 * then rate, median and 99th percentile in microseconds, and how many requests got no answer within LOST_S,
 * or an error. SECONDS count from the start, or with PAUSE_S from `ready` on.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LOST_S 2.0
#define READY_S 60.0 /* for all heartbeats that `ready` waits for, and */
#define READY_EACH_S 0.002
#define PORTS 16000 /* more peers than that share them: a session is known by its name */
#define OPENINGS 1000 /* under way at the same time */
#define NAME "PEERNAME"
#define MAX_OPENING 400
#define MAX_LATENCIES 4000000

struct peer {
    int fd;
    unsigned short mid;
    unsigned token; /* tells whose request it was */
    unsigned asked;
    unsigned long exchange; /* 0: the session is not open yet */
    unsigned char session[8];
    int more; /* the last answer said that more waits: ask for it at once, without a heartbeat */
    int ready;  /* a heartbeat has been answered */
    int paused; /* once at least */
    double sent_at;
    double next_at; /* 0: it waits for an answer */
};

static struct peer *peers;
static const char *path;
static int method, sessions, opening_size, size;
static unsigned char opening[MAX_OPENING];
static long answers, errors, lost, latency_count;
static float *latencies;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int compare(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The frame a session is opened with, in the name of this peer. */
static int append_opening(unsigned char *to, int index) {
    char name[sizeof NAME];
    memcpy(to, opening, opening_size);
    snprintf(name, sizeof name, "%08d", index);
    unsigned char *place = memmem(to, opening_size, NAME, sizeof NAME - 1);
    if (place)
        memcpy(place, name, sizeof NAME - 1);
    return opening_size;
}

static void ask(struct peer *peer, double at, int again) {
    unsigned char data[64 + MAX_OPENING];
    int n = 0;
    if (!again) {
        peer->mid++;
        peer->token = peer->asked++ * size + (peer - peers);
    }
    data[n++] = 0x44;
    data[n++] = sessions ? 2 : method;
    data[n++] = peer->mid >> 8;
    data[n++] = peer->mid & 0xff;
    memcpy(data + n, &peer->token, 4);
    n += 4;
    if (sessions) {
        data[n++] = 0xb1;
        data[n++] = 'e';
        if (peer->exchange) {
            char number[24];
            int digits = snprintf(number, sizeof number, "%lu", peer->exchange);
            data[n++] = 0x08;
            memcpy(data + n, peer->session, 8);
            n += 8;
            data[n++] = 0x40 | digits;
            memcpy(data + n, number, digits);
            n += digits;
        } else if (opening_size) {
            data[n++] = 0xff;
            n += append_opening(data + n, peer - peers);
        }
    } else {
        int length = strlen(path);
        data[n++] = 0xb0 | length;
        memcpy(data + n, path, length);
        n += length;
    }
    if (!sessions || (peer->exchange && !peer->more)) {
        data[n++] = 0xff;
        data[n++] = 0x81; /* Heartbeat: [3] */
        data[n++] = 0x03;
    }
    peer->sent_at = at;
    peer->next_at = 0;
    if (send(peer->fd, data, n, 0) != n)
        errors++;
}

/* Returns which peer has sent what this answers. */
static struct peer *asking(const unsigned char *data) {
    unsigned token;
    memcpy(&token, data + 4, 4);
    return peers + token % size;
}

/* Returns whether the answer was the one that is waited for. */
static int take(struct peer *peer, const unsigned char *data, int n) {
    unsigned token;
    if (n < 8 || data[1] == 0 || (data[0] & 15) != 4)
        return 0;
    if ((data[0] >> 4 & 3) == 0) { /* A separate response is acknowledged. */
        unsigned char ack[4] = {0x60, 0, data[2], data[3]};
        send(peer->fd, ack, 4, 0);
    }
    memcpy(&token, data + 4, 4);
    if (token != peer->token)
        return 0;
    if (data[1] >> 5 != 2) {
        errors++;
        if (sessions && data[1] == 0x84) { /* There is no such session any more: open another one. */
            peer->exchange = peer->more = 0;
            return 1;
        }
    } else if (sessions && !peer->exchange) {
        /* Location-Path `e`, then the session. */
        if (n >= 19 && data[8] == 0x81 && data[10] == 0x08)
            memcpy(peer->session, data + 11, 8);
        else
            errors++;
    }
    /* Behind the location of an opening, there is no option but More. */
    int options_end = sessions && !peer->exchange ? 19 : 8;
    peer->more = sessions && n > options_end && data[options_end] != 0xff;
    peer->exchange++;
    return 1;
}

int main(int count, char **words) {
    if (count < 5)
        return 2;
    int port = atoi(words[1]), waiting = size = atoi(words[2]);
    double seconds = atof(words[3]), pause = 0;
    sessions = !strcmp(words[4], "edgerm");
    if (sessions) {
        const char *hex = count > 5 ? words[5] : "";
        for (; hex[0] && hex[1] && opening_size < MAX_OPENING; hex += 2)
            sscanf(hex, "%2hhx", opening + opening_size++);
        pause = count > 6 ? atof(words[6]) : 0;
    } else {
        method = atoi(words[4]);
        path = words[5];
    }
    int files = 64 + (size < PORTS ? size : PORTS);
    struct rlimit limit = {files, files};
    setrlimit(RLIMIT_NOFILE, &limit);
    struct sockaddr_in address = {AF_INET, htons(port), {htonl(0x7f000001)}, {0}};
    int poll = epoll_create1(0);
    peers = calloc(size, sizeof *peers);
    latencies = malloc(MAX_LATENCIES * sizeof *latencies);
    for (int i = 0; i < size; i++) {
        peers[i].mid = i * 7919;
        if (i >= PORTS) {
            peers[i].fd = peers[i % PORTS].fd;
            continue;
        }
        peers[i].fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = peers[i].fd};
        if (peers[i].fd < 0 || connect(peers[i].fd, (void *)&address, sizeof address)) {
            perror("socket");
            return 1;
        }
        epoll_ctl(poll, EPOLL_CTL_ADD, peers[i].fd, &event);
    }
    double start = now(), counted_from = 0, sweep = start;
    int begun = size < OPENINGS ? size : OPENINGS;
    for (int i = 0; i < begun; i++)
        ask(peers + i, start, 0);
    for (;;) {
        struct epoll_event events[256];
        int ready = epoll_wait(poll, events, 256, pause ? 10 : 100);
        double at = now();
        /* The first quarter warms up. */
        if (!counted_from && (pause ? !waiting : at - start > seconds / 4)) {
            counted_from = at;
            start = pause ? at : start;
            answers = lost = latency_count = 0;
        }
        if (at - start > seconds + (counted_from || !pause ? 0 : READY_S + size * READY_EACH_S))
            break;
        for (int i = 0; i < ready; i++) {
            unsigned char data[2048];
            int n = recv(events[i].data.fd, data, sizeof data, 0);
            struct peer *peer = n < 8 ? NULL : asking(data);
            if (!peer || !take(peer, data, n))
                continue;
            answers++;
            if (latency_count < MAX_LATENCIES)
                latencies[latency_count++] = at - peer->sent_at;
            if (peer->exchange == 2 && !peer->ready) {
                peer->ready = 1;
                if (begun < size)
                    ask(peers + begun++, at, 0);
                if (!--waiting) {
                    puts("ready");
                    fflush(stdout);
                }
            }
            if (pause && peer->exchange >= 2 && !peer->more) {
                /* The first time somewhere within the pause, so that they do not come all at once. */
                peer->next_at = at + pause * (peer->paused ? 1 : (double)(peer - peers + 1) / size);
                peer->paused = 1;
            } else {
                ask(peer, at, 0);
            }
        }
        if (at > sweep) {
            sweep = at + (pause ? 0.01 : LOST_S / 4);
            for (int i = 0; i < begun; i++)
                if (peers[i].next_at ? at > peers[i].next_at : at - peers[i].sent_at > LOST_S) {
                    lost += !peers[i].next_at;
                    ask(peers + i, at, !peers[i].next_at);
                }
        }
    }
    double took = now() - counted_from;
    qsort(latencies, latency_count, sizeof *latencies, compare);
    if (!latency_count)
        latencies[latency_count++] = 0;
    printf("%.1f %.1f %.1f %ld %ld\n", answers / took, latencies[latency_count / 2] * 1e6,
           latencies[(long)(latency_count * 0.99)] * 1e6, lost, errors);
    return 0;
}
