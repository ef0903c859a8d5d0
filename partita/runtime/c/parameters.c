/* parameters.c: finds the parameter table in a file and maps it.
 *
 * The table is a safetensors file: 8 bytes for the header's length, the header, the data. It stands alone, or inside
 * an artifact, whose last 24 bytes say where: a magic, and the distance from the end of the file to the table's start
 * in 16 hexadecimal digits; 0 where the table is the file beside the artifact. So neither ZIP nor JSON is read here.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

#define TRAILER_BYTES 24
#define PREFIX_BYTES 8
static const char magic[8] = {'P', 'A', 'R', 'T', 'I', 'T', 'A', '1'};

typedef struct partita_file {
    int descriptor;
    int64_t bytes;
    int64_t table; /* where the table starts; -1: beside */
} partita_file;

static uint64_t little_endian(const unsigned char *bytes) {
    uint64_t value = 0;
    for (int index = 7; index >= 0; index--)
        value = value << 8 | bytes[index];
    return value;
}

/* 16 digits; what is not a digit makes a distance that no file has. */
static uint64_t hexadecimal(const unsigned char *digits) {
    uint64_t value = 0;
    for (int index = 0; index < 16; index++) {
        const unsigned char digit = digits[index];
        if (!(digit >= '0' && digit <= '9') && !(digit >= 'a' && digit <= 'f'))
            return UINT64_MAX;
        value = value << 4 | (unsigned)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
    }
    return value;
}

static partita_status open_file(const char *path, partita_file *file, char *message, size_t message_bytes) {
    struct stat status;
    unsigned char trailer[TRAILER_BYTES];
    /* O_NONBLOCK: a FIFO must not make us wait; it is refused below. */
    file->descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file->descriptor < 0) {
        snprintf(message, message_bytes, "the parameters cannot be read from '%s': %s", path, strerror(errno));
        return PARTITA_ERROR_PARAMETERS;
    }
    if (fstat(file->descriptor, &status) || !S_ISREG(status.st_mode) || status.st_size < TRAILER_BYTES ||
        pread(file->descriptor, trailer, sizeof trailer, status.st_size - TRAILER_BYTES) != TRAILER_BYTES) {
        snprintf(message, message_bytes, "'%s' is not a file with a parameter table", path);
        close(file->descriptor);
        return PARTITA_ERROR_PARAMETERS;
    }
    file->bytes = status.st_size;
    file->table = 0;
    if (memcmp(trailer, magic, sizeof magic) == 0) {
        const uint64_t distance = hexadecimal(trailer + sizeof magic);
        file->table = distance == 0 ? -1 : distance > (uint64_t)file->bytes ? file->bytes : file->bytes - (int64_t)distance;
    }
    return PARTITA_OK;
}

static partita_status map_table(const partita_model *model, const char *path, const partita_file *file,
                                partita_mapping *mapping, char *message, size_t message_bytes) {
    unsigned char prefix[PREFIX_BYTES];
    const int64_t start = file->table, room = file->bytes - start - PREFIX_BYTES;
    uint64_t header = 0;
    if (room >= 0 && pread(file->descriptor, prefix, sizeof prefix, start) == PREFIX_BYTES)
        header = little_endian(prefix);
    if (header == 0 || header > (uint64_t)room || room - (int64_t)header < model->constant_bytes ||
        (start + PREFIX_BYTES + (int64_t)header) % PARTITA_ALIGNMENT != 0) {
        snprintf(message, message_bytes, "'%s' holds no parameter table for %s, or only part of it", path, model->symbol);
        return PARTITA_ERROR_PARAMETERS;
    }
    const int64_t page = sysconf(_SC_PAGESIZE), begin = start / page * page;
    const int64_t data = start + PREFIX_BYTES + (int64_t)header;
    mapping->bytes = (size_t)(data + model->constant_bytes - begin);
    void *pages = mmap(NULL, mapping->bytes, PROT_READ, MAP_PRIVATE, file->descriptor, begin);
    if (pages == MAP_FAILED) {
        snprintf(message, message_bytes, "'%s' cannot be mapped: %s", path, strerror(errno));
        return PARTITA_ERROR_MEMORY;
    }
    mapping->pages = pages;
    mapping->data = (const char *)pages + (data - begin);
    uint64_t digest = 0xcbf29ce484222325u; /* FNV-1a */
    for (uint64_t index = 0; index < header; index++)
        digest = (digest ^ (unsigned char)mapping->data[(int64_t)index - (int64_t)header]) * 0x100000001b3u;
    if (digest != model->table_digest) {
        snprintf(message, message_bytes, "the parameter table in '%s' is not one for %s: names, types or shapes differ",
                 path, model->symbol);
        partita_unmap_parameters(mapping);
        return PARTITA_ERROR_PARAMETERS;
    }
    return PARTITA_OK;
}

static partita_status map_file(const partita_model *model, const char *path, int may_be_beside,
                               partita_mapping *mapping, char *message, size_t message_bytes);

/* The file beside an artifact: its path with the last suffix replaced by .safetensors. */
static partita_status map_beside(const partita_model *model, const char *path, partita_mapping *mapping, char *message,
                                 size_t message_bytes) {
    static const char suffix[] = ".safetensors";
    const char *name = strrchr(path, '/');
    const char *dot = strrchr(name ? name : path, '.');
    const size_t stem = dot ? (size_t)(dot - path) : strlen(path);
    char *beside = malloc(stem + sizeof suffix);
    if (!beside) {
        snprintf(message, message_bytes, "no memory for a path");
        return PARTITA_ERROR_MEMORY;
    }
    memcpy(beside, path, stem);
    memcpy(beside + stem, suffix, sizeof suffix);
    const partita_status status = map_file(model, beside, 0, mapping, message, message_bytes);
    free(beside);
    return status;
}

static partita_status map_file(const partita_model *model, const char *path, int may_be_beside,
                               partita_mapping *mapping, char *message, size_t message_bytes) {
    partita_file file;
    partita_status status = open_file(path, &file, message, message_bytes);
    if (status)
        return status;
    if (file.table >= 0) {
        status = map_table(model, path, &file, mapping, message, message_bytes);
    } else if (!may_be_beside) {
        snprintf(message, message_bytes, "'%s' holds no parameter table", path);
        status = PARTITA_ERROR_PARAMETERS;
    }
    close(file.descriptor);
    return file.table < 0 && may_be_beside ? map_beside(model, path, mapping, message, message_bytes) : status;
}

partita_status partita_map_parameters(const partita_model *model, const char *path, partita_mapping *mapping,
                                      char *message, size_t message_bytes) {
    Dl_info library;
    if (!path) { /* the file that this very model was loaded from */
        if (!dladdr(model, &library) || !library.dli_fname) {
            snprintf(message, message_bytes, "the file of %s cannot be found; name it in options.parameters",
                     model->symbol);
            return PARTITA_ERROR_PARAMETERS;
        }
        path = library.dli_fname;
    }
    return map_file(model, path, 1, mapping, message, message_bytes);
}

void partita_unmap_parameters(partita_mapping *mapping) {
    if (mapping->pages)
        munmap(mapping->pages, mapping->bytes);
    mapping->pages = NULL;
}
