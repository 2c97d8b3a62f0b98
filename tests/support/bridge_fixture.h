/* bridge_fixture.h - what the tests of trainer_bridge/ share: trajectories with every field set, hex,
 * and a deterministic stream of random numbers. */
#ifndef TESTS_SUPPORT_BRIDGE_FIXTURE_H
#define TESTS_SUPPORT_BRIDGE_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rollout/trajectory.h"

/* A finished, scored sample with n_response tokens in two segments (or fewer); owned by the caller. */
struct trajectory *bridge_trajectory(uint64_t group, int32_t sample, int32_t n_response);

/* Every field of every kind, bit for bit; prints the first one that differs. */
bool bridge_same_trajectory(const struct trajectory *a, const struct trajectory *b);

/* "0a ff" into bytes; spaces and line ends are skipped.  Returns the number of bytes. */
size_t bridge_unhex(const char *hex, uint8_t *out, size_t room);

uint32_t bridge_random(uint64_t *state); /* splitmix64, upper half */

#endif
