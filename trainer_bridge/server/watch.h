/* watch.h - versions that come as files: a directory is watched for markers (PROTOCOL.md, "A directory instead of
 * a socket"), and the checkpoint beside one is taken through the intake like a push.
 *
 * NAME.ready holds a version, NAME/ the checkpoint; NAME.status answers.  The directory is read every SCAN_MS; a
 * checkpoint is copied a piece per turn, so that the run goes on meanwhile.  A missing directory is made. */
#ifndef TRAINER_BRIDGE_SERVER_WATCH_H
#define TRAINER_BRIDGE_SERVER_WATCH_H

#include "trainer_bridge/server/peer.h"

struct watch;

struct watch *watch_open(const char *dir, struct exchange *exchange); /* dir is copied, exchange borrowed */
void watch_close(struct watch *watch); /* what is half taken stays for the next run; NULL is allowed */

/* Goes on; true if there is more to do at once. */
bool watch_turn(struct watch *watch, uint64_t now_ms);

#endif
