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

/* The frames of a batch, as frame_from_message makes them. */
struct batch_frames {
    struct frame_core *frames;
    bool *views;
    size_t count;
    /* Of a batch that was not read to its end. */
    struct message said;
    enum message_fault fault;
    size_t at;
};

/* Reads all messages of a batch into *frames, which is all zero at first. false: there was no memory, or a fault is set: then count
 * messages were sound before. */
bool frames_from_batch(struct batch_frames *frames, const struct message *message, struct span chain, size_t kept,
                       uint64_t generation);

/* Drops the frames that nobody took, from the one of this number on, and frees the rest. */
void batch_frames_free(struct batch_frames *frames, size_t first);

#endif
