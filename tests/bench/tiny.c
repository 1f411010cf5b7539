// The application of the benchmark: as small as an HTTP server can be, so that what is measured is what is around it.
// `tiny --unix PATH`, `tiny --port N`, or `tiny --fd 3`: a listening socket that it is handed. One process, epoll, keep-alive. `/` answers 64 bytes that begin with the process id,
// `/big` 1 MiB. On SIGTERM it stops listening and ends once its connections are closed, half a second later at the latest.
// SPDX-License-Identifier: MIT

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define BIG (1 << 20)

// A connection: the request as far as it has come, and what is left to send.
struct conn {
  int fd, last;
  size_t have, head_sent, head_len, body_left;
  char in[8192], head[256];
  const char *body;
};

static char small[64], *big;
static int ep, listener = -1, open_conns;
static volatile sig_atomic_t ending;

static void on_term(int s) { (void)s; ending = 1; }

static void drop(struct conn *c) { close(c->fd); free(c); open_conns--; }

// Sends what can be sent; 1: all of it, 0: later, -1: the connection is gone.
static int push(struct conn *c) {
  while (c->head_sent < c->head_len || c->body_left) {
    int in_head = c->head_sent < c->head_len;
    const char *from = in_head ? c->head + c->head_sent : c->body;
    size_t len = in_head ? c->head_len - c->head_sent : c->body_left;
    ssize_t n = send(c->fd, from, len, MSG_NOSIGNAL | (in_head && c->body_left > sizeof small ? MSG_MORE : 0));
    if (n < 0 && errno == EAGAIN) return 0;
    if (n < 0) { drop(c); return -1; }
    if (in_head) c->head_sent += n; else { c->body += n; c->body_left -= n; }
  }
  if (c->last || ending) { drop(c); return -1; }
  return 1;
}

// Answers the request that ends at `end`; the small body goes into the head's buffer, so that it is one packet.
static int answer(struct conn *c, const char *end) {
  int is_big = !strncmp(c->in, "GET /big", 8);
  size_t len = is_big ? BIG : sizeof small;
  char *close_asked = strcasestr(c->in, "connection: close");
  c->last = (close_asked && close_asked < end) || ending;
  c->head_len = snprintf(c->head, sizeof c->head - sizeof small,
      "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n%s\r\n", len, c->last ? "Connection: close\r\n" : "");
  c->head_sent = 0;
  c->body_left = 0;
  if (is_big) { c->body = big; c->body_left = len; }
  else { memcpy(c->head + c->head_len, small, sizeof small); c->head_len += sizeof small; }
  return push(c);
}

// Reads and answers, request by request, while there is something and the answers can be sent.
static void serve(struct conn *c) {
  if (c->head_sent < c->head_len || c->body_left) { if (push(c) != 1) return; }
  for (;;) {
    char *end = memmem(c->in, c->have, "\r\n\r\n", 4);
    if (end) {
      size_t used = end + 4 - c->in;
      c->in[used - 1] = 0;
      int sent = answer(c, end);
      if (sent < 0) return;
      memmove(c->in, c->in + used, c->have -= used);
      if (!sent) return;
      continue;
    }
    if (c->have == sizeof c->in) { drop(c); return; }
    ssize_t n = recv(c->fd, c->in + c->have, sizeof c->in - c->have, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) { drop(c); return; }
    c->have += n;
  }
}

static void accept_all(void) {
  for (int fd, one = 1; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct conn *c = malloc(sizeof *c);
    c->fd = fd; c->have = c->head_sent = c->head_len = c->body_left = 0; c->last = 0;
    struct epoll_event e = {EPOLLIN | EPOLLOUT | EPOLLET, {.ptr = c}};
    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
    open_conns++;
  }
}

static void listen_on(const char *kind, const char *where) {
  if (!strcmp(kind, "--unix")) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strncpy(a.sun_path, where, sizeof a.sun_path - 1);
    unlink(where);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bind(listener, (void *)&a, sizeof a)) { perror("bind"); exit(1); }
  } else if (!strcmp(kind, "--fd")) {
    const char *given = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");
    if (!given || atoi(given) < 1 || !pid || atoi(pid) != getpid()) { fprintf(stderr, "no socket was handed over\n"); exit(1); }
    listener = atoi(where);
    if (fcntl(listener, F_SETFL, O_NONBLOCK)) { perror("fcntl"); exit(1); }
    return;
  } else {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(where)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&a, sizeof a)) { perror("bind"); exit(1); }
  }
  if (listen(listener, 4096)) { perror("listen"); exit(1); }
}

int main(int argc, char **argv) {
  if (argc != 3) { fprintf(stderr, "usage: tiny --unix PATH | --port N | --fd 3\n"); return 2; }
  struct sigaction on_end = {.sa_handler = on_term};
  sigaction(SIGTERM, &on_end, NULL);
  // Delivered while it waits and at no other time, so that none falls between a look and the wait.
  sigset_t term, none;
  sigemptyset(&none);
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  sigprocmask(SIG_BLOCK, &term, NULL);
  memset(small, '.', sizeof small);
  small[snprintf(small, sizeof small, "%d ", getpid())] = '.';
  small[sizeof small - 1] = '\n';
  big = calloc(1, BIG);
  ep = epoll_create1(EPOLL_CLOEXEC);
  listen_on(argv[1], argv[2]);
  struct epoll_event e = {EPOLLIN, {.ptr = &listener}}, events[256];
  epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e);
  for (int looks = 0; !ending || (open_conns && looks < 50);) {
    int n = epoll_pwait(ep, events, 256, ending ? 10 : -1, &none);
    for (int i = 0; i < n; i++) {
      if (events[i].data.ptr == &listener) accept_all(); else serve(events[i].data.ptr);
    }
    if (ending) {
      if (listener >= 0) { accept_all(); close(listener); listener = -1; }
      looks++;
    }
  }
  return 0;
}
