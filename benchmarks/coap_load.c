/* Load for a CoAP server on 127.0.0.1: so many peers, each with one confirmable request on its way.
 *
 *     coap_load PORT PEERS SECONDS edgerm
 *     coap_load PORT PEERS SECONDS METHOD PATH
 *
 * With `edgerm` each peer opens a session and then exchanges heartbeats; otherwise it sends the same two
 * bytes to PATH with METHOD (a number). Prints rate, median and 99th percentile in microseconds, and how
 * many requests got no answer within LOST_S, or an error.
 */
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
#define MAX_LATENCIES 4000000

struct peer {
    int fd;
    unsigned short mid;
    unsigned token;
    unsigned long exchange; /* 0: the session is not open yet */
    unsigned char session[8];
    double sent_at;
};

static struct peer *peers;
static const char *path;
static int method, sessions;
static unsigned next_token = 1;
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

static void ask(struct peer *peer, double at) {
    unsigned char data[64];
    int n = 0;
    peer->mid++;
    peer->token = next_token++;
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
        }
    } else {
        int length = strlen(path);
        data[n++] = 0xb0 | length;
        memcpy(data + n, path, length);
        n += length;
    }
    if (!sessions || peer->exchange) {
        data[n++] = 0xff;
        data[n++] = 0x81; /* Heartbeat: [3] */
        data[n++] = 0x03;
    }
    peer->sent_at = at;
    if (send(peer->fd, data, n, 0) != n)
        errors++;
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
    } else if (sessions && !peer->exchange) {
        /* Location-Path `e`, then the session. */
        if (n >= 19 && data[8] == 0x81 && data[10] == 0x08)
            memcpy(peer->session, data + 11, 8);
        else
            errors++;
    }
    peer->exchange++;
    return 1;
}

int main(int count, char **words) {
    if (count < 5)
        return 2;
    int port = atoi(words[1]), size = atoi(words[2]);
    double seconds = atof(words[3]);
    sessions = !strcmp(words[4], "edgerm");
    if (!sessions) {
        method = atoi(words[4]);
        path = words[5];
    }
    struct rlimit limit = {size + 64, size + 64};
    setrlimit(RLIMIT_NOFILE, &limit);
    struct sockaddr_in address = {AF_INET, htons(port), {htonl(0x7f000001)}, {0}};
    int poll = epoll_create1(0);
    peers = calloc(size, sizeof *peers);
    latencies = malloc(MAX_LATENCIES * sizeof *latencies);
    for (int i = 0; i < size; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        peers[i].fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        peers[i].mid = i * 7919;
        if (peers[i].fd < 0 || connect(peers[i].fd, (void *)&address, sizeof address)) {
            perror("socket");
            return 1;
        }
        epoll_ctl(poll, EPOLL_CTL_ADD, peers[i].fd, &event);
    }
    double start = now(), counted_from = 0, sweep = start + LOST_S;
    for (int i = 0; i < size; i++)
        ask(peers + i, start);
    for (;;) {
        struct epoll_event events[256];
        int ready = epoll_wait(poll, events, 256, 100);
        double at = now();
        if (!counted_from && at - start > seconds / 4) { /* The first quarter warms up. */
            counted_from = at;
            answers = lost = latency_count = 0;
        }
        if (at - start > seconds)
            break;
        for (int i = 0; i < ready; i++) {
            struct peer *peer = peers + events[i].data.u32;
            unsigned char data[2048];
            int n = recv(peer->fd, data, sizeof data, 0);
            if (n < 0 || !take(peer, data, n))
                continue;
            answers++;
            if (latency_count < MAX_LATENCIES)
                latencies[latency_count++] = at - peer->sent_at;
            ask(peer, at);
        }
        if (at > sweep) {
            sweep = at + LOST_S / 4;
            for (int i = 0; i < size; i++)
                if (at - peers[i].sent_at > LOST_S) {
                    lost++;
                    ask(peers + i, at); /* The same exchange again. */
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
