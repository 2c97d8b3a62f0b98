/* http_request.c - see http_request.h. */
#include "trainer_bridge/server/http_request.h"

#include <string.h>
#include <strings.h>

/* A run of bytes. */
struct span {
	const char *at;
	size_t n;
};

static bool is_token(unsigned char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
	       (c != '\0' && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_visible(unsigned char c) { return c > 0x20 && c < 0x7f; }

static bool equals(struct span s, const char *text) { return s.n == strlen(text) && memcmp(s.at, text, s.n) == 0; }

static bool equals_name(struct span s, const char *text) { return s.n == strlen(text) && strncasecmp(s.at, text, s.n) == 0; }

/* What comes before the next `end`, both taken off the rest; false where there is none. */
static bool take_until(struct span *rest, const char *end, struct span *taken)
{
	size_t n_end = strlen(end);

	for (size_t i = 0; i + n_end <= rest->n; i++) {
		if (memcmp(rest->at + i, end, n_end) != 0) continue;
		*taken = (struct span){ rest->at, i };
		rest->at += i + n_end;
		rest->n -= i + n_end;
		return true;
	}
	return false;
}

/* "/path?query", or the same behind http://authority. */
static int read_target(struct http_request *request, struct span target)
{
	static const char scheme[] = "http://";

	for (size_t i = 0; i < target.n; i++)
		if (!is_visible((unsigned char)target.at[i])) return 400;
	if (target.n > strlen(scheme) && strncasecmp(target.at, scheme, strlen(scheme)) == 0) {
		const char *slash = memchr(target.at + strlen(scheme), '/', target.n - strlen(scheme));
		if (!slash) return 400;
		target.n -= (size_t)(slash - target.at);
		target.at = slash;
	}
	if (target.n == 0 || target.at[0] != '/') return 400;
	const char *query = memchr(target.at, '?', target.n);
	size_t n = query ? (size_t)(query - target.at) : target.n;
	if (n >= HTTP_PATH_MAX) return 414;
	memcpy(request->path, target.at, n);
	request->path[n] = '\0';
	return HTTP_OK;
}

static int read_request_line(struct http_request *request, struct span line, bool *needs_host)
{
	struct span method, target;

	if (!take_until(&line, " ", &method) || !take_until(&line, " ", &target) || method.n == 0) return 400;
	for (size_t i = 0; i < method.n; i++)
		if (!is_token((unsigned char)method.at[i])) return 400;
	if (line.n != strlen("HTTP/1.1") || memcmp(line.at, "HTTP/", 5) != 0) return 400;
	*needs_host = equals(line, "HTTP/1.1");
	if (!*needs_host && !equals(line, "HTTP/1.0")) return 505;
	request->head_only = equals(method, "HEAD");
	if (!request->head_only && !equals(method, "GET")) return 405;
	return read_target(request, target);
}

/* *hosts: counted.  A request that announces a body is refused: nothing here takes one. */
static int read_field(struct span line, int *hosts)
{
	struct span name;

	if (!take_until(&line, ":", &name) || name.n == 0) return 400;
	for (size_t i = 0; i < name.n; i++)
		if (!is_token((unsigned char)name.at[i])) return 400;
	while (line.n > 0 && (line.at[0] == ' ' || line.at[0] == '\t')) line.at++, line.n--;
	while (line.n > 0 && (line.at[line.n - 1] == ' ' || line.at[line.n - 1] == '\t')) line.n--;
	for (size_t i = 0; i < line.n; i++) {
		unsigned char c = (unsigned char)line.at[i];
		if ((c < 0x20 && c != '\t') || c == 0x7f) return 400;
	}
	if (equals_name(name, "Host")) ++*hosts;
	if (equals_name(name, "Transfer-Encoding")) return 413;
	if (equals_name(name, "Content-Length") && !equals(line, "0")) return 413;
	return HTTP_OK;
}

int http_request_parse(struct http_request *request, const char *bytes, size_t n_bytes)
{
	struct span all = { bytes, n_bytes }, head, line;
	bool needs_host = false;
	int hosts = 0;

	*request = (struct http_request){ 0 };
	if (n_bytes > 0 && !is_token((unsigned char)bytes[0])) return 400; /* not worth waiting for the rest */
	if (!take_until(&all, "\r\n\r\n", &head)) return n_bytes < HTTP_HEAD_BYTES_MAX ? HTTP_MORE : 431;
	if (head.n + 4 > HTTP_HEAD_BYTES_MAX) return 431;
	head.n += 2; /* each of its lines ends with CR LF */
	if (!take_until(&head, "\r\n", &line)) return 400;
	int status = read_request_line(request, line, &needs_host);
	for (int i = 0; status == HTTP_OK && head.n > 0; i++) {
		if (i == HTTP_FIELDS_MAX) return 431;
		if (!take_until(&head, "\r\n", &line)) return 400;
		status = read_field(line, &hosts);
	}
	if (status == HTTP_OK && (hosts > 1 || (needs_host && hosts == 0))) return 400;
	return status;
}

const char *http_status_text(int status)
{
	static const struct { int status; const char *text; } texts[] = {
		{ 200, "OK" }, { 400, "Bad Request" }, { 404, "Not Found" }, { 405, "Method Not Allowed" },
		{ 408, "Request Timeout" }, { 413, "Content Too Large" }, { 414, "URI Too Long" },
		{ 431, "Request Header Fields Too Large" }, { 503, "Service Unavailable" }, { 505, "HTTP Version Not Supported" },
	};

	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		if (texts[i].status == status) return texts[i].text;
	return "Error";
}
