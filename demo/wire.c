// SPDX-License-Identifier: GPL-2.0
/* Messages between source and destination. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "demo.h"

void wire_init(struct wire *w, int fd, int stop_fd, unsigned int timeout)
{
	struct timeval tv = { .tv_sec = timeout };
	int buf = 32 << 10;

	memset(w, 0, sizeof(*w));
	w->fd = fd;
	w->stop_fd = stop_fd;
	w->timeout_ms = timeout * 1000;
	pthread_mutex_init(&w->lock, NULL);

	/*
	 * A wanted page queues up behind whatever part of the background
	 * stream sits in the socket: keep that short.
	 */
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buf, sizeof(buf));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
}

/* len is a multiple of 8. */
u64 checksum(const void *buf, size_t len, u64 seed)
{
	u64 h = (seed + 1) * 0x9e3779b97f4a7c15ull;
	const u64 *p = buf;
	size_t i;

	for (i = 0; i < len / 8; i++) {
		h = (h ^ p[i]) * 0xff51afd7ed558ccdull;
		h ^= h >> 32;
	}
	return h;
}

void msg_fill(struct msg *m, enum msg_type type, u64 page, u32 flags,
	      const void *buf, u32 len)
{
	memset(m, 0, sizeof(*m));
	m->magic = MSG_MAGIC;
	m->type = type;
	m->page = page;
	m->flags = flags;
	m->len = len;
	m->csum = checksum(buf, len, page);
	m->hsum = checksum(m, offsetof(struct msg, hsum), type);
}

/* Send a header and the first len bytes of the payload as they are. */
bool wire_raw(struct wire *w, const struct msg *m, const void *buf, u32 len)
{
	struct iovec iov[2] = {
		{ (void *)m, sizeof(*m) }, { (void *)buf, len },
	};
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = 2 };
	bool ok = true;

	pthread_mutex_lock(&w->lock);
	while (mh.msg_iovlen) {
		ssize_t n = sendmsg(w->fd, &mh, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			ok = false;
			break;
		}
		while (mh.msg_iovlen && (size_t)n >= mh.msg_iov->iov_len) {
			n -= mh.msg_iov->iov_len;
			mh.msg_iov++;
			mh.msg_iovlen--;
		}
		if (mh.msg_iovlen) {
			mh.msg_iov->iov_base = (char *)mh.msg_iov->iov_base + n;
			mh.msg_iov->iov_len -= n;
		}
	}
	pthread_mutex_unlock(&w->lock);
	return ok;
}

bool wire_send(struct wire *w, enum msg_type type, u64 page, u32 flags,
	       const void *buf, u32 len)
{
	struct msg m;

	msg_fill(&m, type, page, flags, buf, len);
	return wire_raw(w, &m, buf, len);
}

/* Is there something to read (data or the end of the stream) within ms? */
bool wire_wait(struct wire *w, int ms)
{
	struct pollfd p = { .fd = w->fd, .events = POLLIN };

	return poll(&p, 1, ms) > 0;
}

static enum wire_status read_full(struct wire *w, void *buf, size_t len,
				  size_t *got)
{
	struct pollfd p[2] = {
		{ .fd = w->fd, .events = POLLIN },
		{ .fd = w->stop_fd, .events = POLLIN },
	};

	*got = 0;
	while (*got < len) {
		ssize_t n;
		int r = poll(p, 2, w->timeout_ms);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return WIRE_QUIET;
		if (p[1].revents)
			return WIRE_STOP;
		n = read(w->fd, (char *)buf + *got, len - *got);
		if (n < 0 && errno == EINTR)
			continue;
		/* A killed peer with unread data gives ECONNRESET. */
		if (n <= 0)
			return *got ? WIRE_SHORT : WIRE_CLOSED;
		*got += n;
	}
	return WIRE_OK;
}

static enum wire_status bad(struct wire *w, const char *what, u64 a, u64 b)
{
	snprintf(w->why, sizeof(w->why), what, (unsigned long long)a,
		 (unsigned long long)b);
	return WIRE_BAD;
}

/*
 * Receive one message.  Nothing of it is used before all of it is here and its
 * checksums fit.  On failure w->why says what is wrong.
 */
enum wire_status wire_recv(struct wire *w, struct msg *m, void *buf, u32 max)
{
	enum wire_status st;
	size_t got;

	strcpy(w->why, "connection closed");
	st = read_full(w, m, sizeof(*m), &got);
	if (st == WIRE_SHORT)
		bad(w, "short read: %llu of %llu bytes of a header", got, sizeof(*m));
	if (st == WIRE_QUIET)
		bad(w, "nothing heard for %llu s", w->timeout_ms / 1000, 0);
	if (st)
		return st;
	if (m->magic != MSG_MAGIC)
		return bad(w, "bad magic %#llx in a message header", m->magic, 0);
	if (m->hsum != checksum(m, offsetof(struct msg, hsum), m->type))
		return bad(w, "bad checksum of a message header", 0, 0);
	if (!m->type || m->type >= MSG_LAST)
		return bad(w, "unknown message type %llu", m->type, 0);
	if (m->len > max || m->len % 8)
		return bad(w, "message of type %llu has a length of %llu",
			   m->type, m->len);

	st = read_full(w, buf, m->len, &got);
	if (st == WIRE_CLOSED)
		st = WIRE_SHORT;
	if (st == WIRE_SHORT && m->type == MSG_PAGE)
		bad(w, "short read: page %llu ended after %llu bytes", m->page, got);
	else if (st == WIRE_SHORT)
		bad(w, "short read: message of type %llu ended after %llu bytes",
		    m->type, got);
	if (st == WIRE_QUIET)
		bad(w, "nothing heard for %llu s within a message",
		    w->timeout_ms / 1000, 0);
	if (st)
		return st;
	if (m->csum != checksum(buf, m->len, m->page))
		return bad(w, m->type == MSG_PAGE ? "bad checksum of page %llu" :
			   "bad checksum of a message", m->page, 0);
	return WIRE_OK;
}
