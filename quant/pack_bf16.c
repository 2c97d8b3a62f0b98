/* pack_bf16.c - row-major weights [N][K] into panels [N/PANEL][K][PANEL]: once per published version.
 *
 * Cost: one read and one write of the matrix; tiles of PANEL inputs keep the 16 source lines of a
 * panel in L1 while it is written in order.
 */
#include "quant/kernels.h"

static void pack_panel(uint16_t *packed, const uint16_t *rows, int outputs, int k)
{
	for (int k0 = 0; k0 < k; k0 += PANEL) {
		int k1 = k - k0 < PANEL ? k : k0 + PANEL;
		for (int o = 0; o < PANEL; o++)
			for (int i = k0; i < k1; i++)
				packed[(size_t)i * PANEL + (size_t)o] =
					o < outputs ? rows[(size_t)o * (size_t)k + (size_t)i] : 0;
	}
}

void pack_bf16(uint16_t *packed, const uint16_t *rows, int n, int k, int panel_begin, int panel_end)
{
	for (int p = panel_begin; p < panel_end; p++) {
		size_t first = (size_t)p * PANEL * (size_t)k;
		int left = n - p * PANEL;
		pack_panel(packed + first, rows + first, left < PANEL ? left : PANEL, k);
	}
}
