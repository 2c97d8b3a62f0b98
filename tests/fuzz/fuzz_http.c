/* fuzz_http.c - any bytes are a request, the beginning of one, or a status to refuse them with; a path is visible ASCII
 * from its '/' on; and what was whole stays so, whatever follows it. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "trainer_bridge/server/http_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
	struct http_request request, again;
	int status = http_request_parse(&request, (const char *)bytes, n_bytes);

	if (status != HTTP_OK) {
		assert(status == HTTP_MORE || (status >= 400 && status <= 505 && strcmp(http_status_text(status), "Error") != 0));
		assert(status != HTTP_MORE || n_bytes < HTTP_HEAD_BYTES_MAX);
		return 0;
	}
	assert(request.path[0] == '/' && strlen(request.path) < HTTP_PATH_MAX);
	for (const char *p = request.path; *p; p++) assert(*p > ' ' && *p < 0x7f && *p != '?');
	char *longer = malloc(n_bytes + 4);
	memcpy(longer, bytes, n_bytes);
	memcpy(longer + n_bytes, "\r\nX", 4);
	assert(http_request_parse(&again, longer, n_bytes + 3) == HTTP_OK && strcmp(again.path, request.path) == 0);
	free(longer);
	return 0;
}
