/* From a message to what a frame object embeds. */
#ifndef SUPERVM_REMOTE_FRAME_H
#define SUPERVM_REMOTE_FRAME_H

#include "message.h"
#include "reader.h"

/* A view keeps the bytes of a whole message alive, so it is made where the payload is at least this share of them. */
#define FRAME_VIEW_SHARE 4

/* Fills *frame, which is all zero, from a sound message that is a block, reorg, finalized or end of input. kept: how many bytes a view
 * of the payload would keep alive. *views: the payload is one, and the caller keeps the bytes for as long as the frame lives. false:
 * there was no memory. */
bool frame_from_message(struct frame_core *frame, const struct message *message, size_t kept, uint64_t generation, bool *views);

#endif
