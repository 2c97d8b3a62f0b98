/* pack_bf16.c - row-major weights [N][K] into panels [N/PANEL][K/2][PANEL][2]: once per published version.
 *
 * Pairs of inputs are moved as one 32-bit word.  Cost: one read and one write of the matrix; tiles of
 * PANEL pairs, a cache line of every row, keep the 16 source lines of a panel in L1 while it is written in
 * order.
 */
#include "quant/kernels.h"

#include <string.h>

/* All PANEL pairs of all PANEL rows: no conditions inside. */
static void pack_tile(uint32_t *packed, const uint16_t *rows, size_t k)
{
	uint32_t tile[PANEL][PANEL];
	for (size_t o = 0; o < PANEL; o++) memcpy(tile[o], rows + o * k, sizeof tile[o]);
	for (size_t pair = 0; pair < PANEL; pair++)
		for (size_t o = 0; o < PANEL; o++) packed[pair * PANEL + o] = tile[o][pair];
}

/* Inputs [begin, k) of a panel, absent rows and the second of an odd pair as zeros. */
static void pack_rest(uint16_t *packed, const uint16_t *rows, int outputs, int k, int begin)
{
	for (int o = 0; o < PANEL; o++)
		for (int i = begin; i < k + k % 2; i++)
			packed[packed_bf16_at(k, o, i)] = o < outputs && i < k ? rows[(size_t)o * (size_t)k + (size_t)i] : 0;
}

static void pack_panel(uint16_t *packed, const uint16_t *rows, int outputs, int k)
{
	int whole = outputs == PANEL ? k / (2 * PANEL) * (2 * PANEL) : 0;
	for (int i = 0; i < whole; i += 2 * PANEL)
		pack_tile((uint32_t *)(void *)(packed + (size_t)i * PANEL), rows + i, (size_t)k);
	pack_rest(packed, rows, outputs, k, whole);
}

void pack_bf16(uint16_t *packed, const uint16_t *rows, int n, int k, int panel_begin, int panel_end)
{
	for (int p = panel_begin; p < panel_end; p++) {
		int left = n - p * PANEL;
		pack_panel(packed + (size_t)p * packed_panel_elements(k), rows + (size_t)p * PANEL * (size_t)k,
		           left < PANEL ? left : PANEL, k);
	}
}
