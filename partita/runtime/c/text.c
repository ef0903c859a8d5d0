/* text.c: memory for the strings that a run makes. It is taken in blocks, which are given back all at once. */
#include <stdlib.h>

#include "internal.h"

#define BLOCK_BYTES 65536

struct partita_text {
    partita_text *next;
    int64_t used, bytes;
    char data[];
};

char *partita_text_of(const partita_call *call, int64_t bytes) {
    partita_instance *instance = call->instance;
    char *place = NULL;
    pthread_mutex_lock(&instance->text_lock);
    partita_text *block = instance->text;
    if (bytes >= 0 && (!block || block->bytes - block->used < bytes)) {
        const int64_t room = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
        block = room > INT64_MAX - (int64_t)sizeof *block ? NULL : partita_allocate((int64_t)sizeof *block + room);
        if (block) {
            *block = (partita_text){.next = instance->text, .bytes = room};
            instance->text = block;
        }
    }
    if (bytes >= 0 && block) {
        place = block->data + block->used;
        block->used += bytes;
    }
    pthread_mutex_unlock(&instance->text_lock);
    if (!place)
        partita_fail(instance, PARTITA_ERROR_MEMORY, "no memory for a string of %lld bytes", (long long)bytes);
    return place;
}

void partita_free_text(partita_text *text) {
    while (text) {
        partita_text *next = text->next;
        free(text);
        text = next;
    }
}
