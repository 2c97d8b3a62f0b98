/* http_request.h - the head of an HTTP request as bytes in, values out: what a scraper of metrics or a browser sends.
 *
 * HTTP/1.0 and 1.1 (RFC 9112), GET and HEAD, no body.  Strict: lines end with CR LF, no folded fields, no control
 * characters, one Host in 1.1.  Does no I/O and keeps nothing. */
#ifndef TRAINER_BRIDGE_SERVER_HTTP_REQUEST_H
#define TRAINER_BRIDGE_SERVER_HTTP_REQUEST_H

#include <stdbool.h>
#include <stddef.h>

enum {
	HTTP_HEAD_BYTES_MAX = 8192,
	HTTP_FIELDS_MAX = 64,
	HTTP_PATH_MAX = 256
};

struct http_request {
	bool head_only;           /* HEAD */
	char path[HTTP_PATH_MAX]; /* from its '/' on, without a query; visible ASCII, not decoded */
};

enum { HTTP_MORE = 0, HTTP_OK = 200 };

/* The n_bytes that have come so far.  HTTP_MORE: the head is not whole yet; HTTP_OK: *request is it, and what follows it is
 * not looked at; else the status to refuse it with: 400, 405, 413 (a body), 414, 431, 505. */
int http_request_parse(struct http_request *request, const char *bytes, size_t n_bytes);

const char *http_status_text(int status); /* "Not Found" */

#endif
