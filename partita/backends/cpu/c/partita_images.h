/* partita_images.h: pixels of images in memory. BMP and PNM are decoded here; others by the libraries that the C compiler
 * found, as PARTITA_WITH_<name> tells. A decoder is run twice: for the sizes, and for the pixels. */
#ifndef PARTITA_IMAGES_H
#define PARTITA_IMAGES_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "partita_kernel.h"

#define PARTITA_PIXELS (INT64_C(1) << 28) /* at most: what claims to have more is taken for an attack on memory */

typedef struct partita_image {
    const uint8_t *data;
    int64_t bytes, at;     /* `at`: how far it is read */
    int64_t height, width; /* what it has; must have, where pixels are wanted */
    uint8_t *rgba;         /* [height, width, 4], where the last may be anything; NULL: only the sizes are wanted */
    char problem[200];     /* the first one; "" as long as all is well */
} partita_image;

static inline bool partita_image_fail(partita_image *image, const char *problem) {
    if (!image->problem[0])
        snprintf(image->problem, sizeof image->problem, "%.*s", (int)strcspn(problem, "\n"), problem);
    return false;
}

/* Whether pixels are wanted, of these sizes. */
static inline bool partita_image_sized(partita_image *image, int64_t height, int64_t width) {
    if (height <= 0 || width <= 0 || height > PARTITA_PIXELS / width)
        return partita_image_fail(image, "it says that it has no pixels, or more than 2^28");
    if (image->rgba && (height != image->height || width != image->width))
        return partita_image_fail(image, "its sizes changed while it was read");
    image->height = height, image->width = width;
    return image->rgba != NULL && !image->problem[0];
}

static inline bool partita_image_has(partita_image *image, int64_t at, int64_t bytes) {
    return (at <= image->bytes && bytes <= image->bytes - at) || partita_image_fail(image, "it is cut off");
}

/* ------------------------------------------------------------------ BMP and PNM */

/* A number of some bytes, the least first. */
static inline uint32_t partita_image_number(partita_image *image, int64_t at, int64_t bytes) {
    uint32_t number = 0;
    for (int64_t n = 0; partita_image_has(image, at, bytes) && n < bytes; ++n)
        number |= (uint32_t)image->data[at + n] << 8 * n;
    return number;
}

/* Pixels of up to a byte are places in a palette; of more bytes, masks tell where the colors are. */
static inline void partita_image_bmp(partita_image *image) {
    const int64_t start = partita_image_number(image, 10, 4), palette = 14 + (int64_t)partita_image_number(image, 14, 4);
    const int old = palette == 14 + 12 ? 2 : 4; /* bytes of a size */
    const uint32_t kind = old == 2 ? 0 : partita_image_number(image, 30, 4), bits = partita_image_number(image, 20 + 2 * old, 2);
    const int64_t width = partita_image_number(image, 18, old), bytes = (bits + 7) / 8, row_bytes = (width * bits + 31) / 32 * 4;
    const int64_t rows = old == 2 ? (int64_t)partita_image_number(image, 20, 2) : (int32_t)partita_image_number(image, 22, 4);
    const int64_t height = rows < 0 ? -rows : rows;
    uint32_t masks[3] = {bits == 16 ? 0x7c00 : 0xff0000, bits == 16 ? 0x3e0 : 0xff00, bits == 16 ? 0x1f : 0xff};
    for (int color = 0; kind == 3 && color < 3; ++color)
        masks[color] = partita_image_number(image, 54 + 4 * color, 4);
    if (!(bits == 1 || bits == 4 || bits == 8 || bits == 16 || bits == 24 || bits == 32) || (kind && (kind != 3 || bits <= 8)))
        partita_image_fail(image, "pixels that are compressed, or of this number of bits, are not decoded");
    if (!partita_image_has(image, start, height <= PARTITA_PIXELS && width <= PARTITA_PIXELS ? row_bytes * height : 0) ||
        !partita_image_sized(image, height, width))
        return;
    for (int64_t pixel = 0; pixel < height * width; ++pixel) {
        const int64_t row = pixel / width, bit = pixel % width * bits;
        uint32_t value = partita_image_number(image, start + row_bytes * (rows < 0 ? row : height - 1 - row) + bit / 8, bytes);
        if (bits <= 8) {
            value = value >> (8 - bits - bit % 8) & ((1u << bits) - 1);
            value = partita_image_number(image, palette + value * (old == 2 ? 3 : 4), 3);
        }
        for (int color = 0; color < 3; ++color) {
            const uint32_t least = masks[color] ? masks[color] & -masks[color] : 1, most = masks[color] / least;
            image->rgba[4 * pixel + color] = (uint8_t)((uint64_t)((value & masks[color]) / least) * 255 / (most ? most : 1));
        }
    }
}

/* The next number in text, of so many digits at most, after white space and comments. */
static inline int64_t partita_image_text(partita_image *image, int digits) {
    const uint8_t *text = image->data;
    int64_t number = 0, at = image->at, start;
    for (bool is_comment = false; at < image->bytes && (is_comment || (text[at] && strchr("# \t\r\n\v\f", text[at]))); ++at)
        is_comment = text[at] == '#' || (is_comment && text[at] != '\n' && text[at] != '\r');
    for (start = at; at < image->bytes && at < start + digits && text[at] >= '0' && text[at] <= '9'; ++at)
        number = number * 10 + text[at] - '0';
    if (at == start)
        partita_image_fail(image, "a number is missing");
    image->at = at;
    return number;
}

/* P1 to P6: bits, gray, colors; as text, then as bytes. */
static inline void partita_image_pnm(partita_image *image) {
    const int kind = image->data[1] - '1', colors = kind % 3 == 2 ? 3 : 1;
    const bool is_bits = kind % 3 == 0, is_text = kind < 3;
    image->at = 2;
    const int64_t width = partita_image_text(image, 9), height = partita_image_text(image, 9), row = width * colors;
    const int64_t most = is_bits ? 1 : partita_image_text(image, 5), start = image->at + 1;
    const int64_t bytes = most > 255 ? 2 : 1, row_bytes = is_bits ? (width + 7) / 8 : row * bytes;
    if (kind < 0 || kind > 5 || most < 1 || most > 65535)
        partita_image_fail(image, "it is none of P1 to P6 with values up to 65535");
    if (!partita_image_has(image, start, is_text ? 0 : row_bytes * height) || !partita_image_sized(image, height, width))
        return;
    for (int64_t pixel = 0; pixel < height * width; ++pixel) {
        for (int color = 0; color < colors && !image->problem[0]; ++color) {
            const int64_t place = pixel % width * colors + color;
            const uint8_t *sample = image->data + start + pixel / width * row_bytes + place * bytes / (is_bits ? 8 : 1);
            int64_t value = is_text ? partita_image_text(image, is_bits ? 1 : 5) : *sample;
            if (is_bits)
                value = !(is_text ? value : value >> (7 - place % 8) & 1);
            else if (bytes == 2 && !is_text)
                value = value << 8 | sample[1];
            if (value > most)
                partita_image_fail(image, "a value is larger than the largest");
            memset(image->rgba + 4 * pixel + color, (int)((value * 255 + most / 2) / most), (size_t)(4 - color));
        }
    }
}

/* ------------------------------------------------------------------ libraries */

/* Moves on by some bytes from a place as fseek names it, or to the nearest end; gives where. */
static inline uint64_t partita_image_seek(void *user, uint64_t by, int from) {
    partita_image *image = user;
    const int64_t place = from == SEEK_SET ? 0 : from == SEEK_CUR ? image->at : image->bytes, bytes = (int64_t)by;
    image->at = bytes < -place ? 0 : bytes > image->bytes - place ? image->bytes : place + bytes;
    return (uint64_t)image->at;
}

/* Reads up to `bytes` more bytes; gives how many. */
static inline int64_t partita_image_read(void *user, void *target, int64_t bytes) {
    partita_image *image = user;
    const int64_t from = image->at, count = (int64_t)partita_image_seek(image, (uint64_t)bytes, SEEK_CUR) - from;
    memcpy(target, image->data + from, (size_t)count);
    return count;
}

#ifdef PARTITA_WITH_TURBOJPEG
#include <turbojpeg.h>

/* What the library only warns of is damage too, but for bytes between the parts, which some cameras write. */
static inline void partita_image_jpeg(partita_image *image) {
    tjhandle jpeg = tjInitDecompress();
    const unsigned long bytes = (unsigned long)image->bytes;
    int width = 0, height = 0, sampling = 0, space = 0;
    if (tjDecompressHeader3(jpeg, image->data, bytes, &width, &height, &sampling, &space) ||
        (partita_image_sized(image, height, width) &&
         tjDecompress2(jpeg, image->data, bytes, image->rgba, width, 0, height, TJPF_RGBX, TJFLAG_ACCURATEDCT) &&
         !strstr(tjGetErrorStr2(jpeg), "extraneous bytes")))
        partita_image_fail(image, tjGetErrorStr2(jpeg));
    tjDestroy(jpeg);
}
#else
#define partita_image_jpeg NULL
#endif

#ifdef PARTITA_WITH_PNG
#include <png.h>

static inline void partita_image_png(partita_image *image) {
    png_image png = {.version = PNG_IMAGE_VERSION};
    if (png_image_begin_read_from_memory(&png, image->data, (size_t)image->bytes) &&
        partita_image_sized(image, png.height, png.width)) {
        png.format = PNG_FORMAT_RGBA; /* without an alpha, colors would be mixed with a background's */
        png.flags |= PNG_IMAGE_FLAG_16BIT_sRGB;
        png_image_finish_read(&png, NULL, image->rgba, 0, NULL);
    }
    if (PNG_IMAGE_FAILED(png))
        partita_image_fail(image, png.message);
    png_image_free(&png);
}
#else
#define partita_image_png NULL
#endif

#ifdef PARTITA_WITH_TIFF
#include <tiffio.h>

static inline int partita_tiff_error(TIFF *tiff, void *user, const char *module, const char *format, va_list values) {
    char text[160];
    vsnprintf(text, sizeof text, format, values);
    if (user) /* else it warns */
        partita_image_fail(user, text);
    return (void)tiff, (void)module, 1;
}
static inline int partita_tiff_close(thandle_t user) { return (void)user, 0; }
static inline toff_t partita_tiff_size(thandle_t user) { return (toff_t)((partita_image *)user)->bytes; }

static inline void partita_image_tiff(partita_image *image) {
    char text[1024] = "its pixels cannot be read";
    uint32_t height = 0, width = 0;
    TIFFOpenOptions *options = TIFFOpenOptionsAlloc();
    TIFFOpenOptionsSetErrorHandlerExtR(options, partita_tiff_error, image);
    TIFFOpenOptionsSetWarningHandlerExtR(options, partita_tiff_error, NULL);
    TIFFOpenOptionsSetMaxSingleMemAlloc(options, 4 * PARTITA_PIXELS);
    TIFF *tiff = TIFFClientOpenExt("image", "rm", image, partita_image_read, partita_image_read, partita_image_seek,
                                   partita_tiff_close, partita_tiff_size, NULL, NULL, options);
    TIFFOpenOptionsFree(options);
    bool is_read = tiff && TIFFRGBAImageOK(tiff, text) && TIFFGetField(tiff, TIFFTAG_IMAGELENGTH, &height) &&
                   TIFFGetField(tiff, TIFFTAG_IMAGEWIDTH, &width);
    if (is_read && partita_image_sized(image, height, width))
        is_read = TIFFReadRGBAImageOriented(tiff, width, height, (uint32_t *)image->rgba, ORIENTATION_TOPLEFT, 1);
    if (!is_read)
        partita_image_fail(image, text);
    if (tiff)
        TIFFClose(tiff);
}
#else
#define partita_image_tiff NULL
#endif

#ifdef PARTITA_WITH_WEBP
#include <webp/decode.h>

static inline void partita_image_webp(partita_image *image) {
    int width = 0, height = 0;
    const size_t bytes = (size_t)image->bytes;
    if (!WebPGetInfo(image->data, bytes, &width, &height))
        partita_image_fail(image, "its header cannot be read");
    else if (partita_image_sized(image, height, width) &&
             !WebPDecodeRGBAInto(image->data, bytes, image->rgba, 4 * (size_t)width * (size_t)height, 4 * width))
        partita_image_fail(image, "its pixels cannot be read");
}
#else
#define partita_image_webp NULL
#endif

#ifdef PARTITA_WITH_OPENJP2
#if __has_include(<openjpeg-2.5/openjpeg.h>)
#include <openjpeg-2.5/openjpeg.h>
#else
#include <openjpeg.h>
#endif

static inline void partita_jp2_error(const char *text, void *user) { partita_image_fail(user, text); }
static inline OPJ_SIZE_T partita_jp2_read(void *target, OPJ_SIZE_T bytes, void *user) {
    const int64_t count = partita_image_read(user, target, (int64_t)bytes);
    return count ? (OPJ_SIZE_T)count : (OPJ_SIZE_T)-1;
}
static inline OPJ_BOOL partita_jp2_seek(OPJ_OFF_T at, void *user) {
    return (OPJ_OFF_T)partita_image_seek(user, (uint64_t)at, SEEK_SET) == at;
}
static inline OPJ_OFF_T partita_jp2_skip(OPJ_OFF_T bytes, void *user) {
    const int64_t from = ((partita_image *)user)->at;
    return (OPJ_OFF_T)partita_image_seek(user, (uint64_t)bytes, SEEK_CUR) - from;
}

/* Colors from planes of 8 to 31 bits. */
static inline void partita_jp2_colors(partita_image *image, const opj_image_t *planes) {
    for (uint32_t n = 0; n < 3; ++n) {
        const opj_image_comp_t plane = planes->comps[planes->numcomps < 3 ? 0 : n];
        const int64_t zero = plane.sgnd ? INT64_C(1) << (plane.prec - 1) : 0;
        if (!plane.data || plane.h != image->height || plane.w != image->width || plane.prec < 8 || planes->color_space > 2)
            partita_image_fail(image, "colors other than gray and RGB of each pixel, in 8 bits or more, are not decoded");
        for (int64_t pixel = 0; !image->problem[0] && pixel < image->height * image->width; ++pixel) {
            const int64_t byte = (plane.data[pixel] + zero) >> (plane.prec - 8);
            image->rgba[4 * pixel + n] = (uint8_t)(byte < 0 ? 0 : byte > 255 ? 255 : byte);
        }
    }
}

static inline void partita_image_jp2(partita_image *image) {
    opj_image_t *planes = NULL;
    opj_dparameters_t parameters;
    opj_set_default_decoder_parameters(&parameters);
    opj_codec_t *codec = opj_create_decompress(image->data[0] ? OPJ_CODEC_J2K : OPJ_CODEC_JP2);
    opj_stream_t *stream = opj_stream_default_create(OPJ_TRUE);
    opj_set_error_handler(codec, partita_jp2_error, image);
    opj_stream_set_read_function(stream, partita_jp2_read);
    opj_stream_set_skip_function(stream, partita_jp2_skip);
    opj_stream_set_seek_function(stream, partita_jp2_seek);
    opj_stream_set_user_data(stream, image, NULL);
    opj_stream_set_user_data_length(stream, (OPJ_UINT64)image->bytes);
    if (!opj_setup_decoder(codec, &parameters) || !opj_read_header(stream, codec, &planes))
        partita_image_fail(image, "its header cannot be read");
    else if (partita_image_sized(image, planes->comps[0].h, planes->comps[0].w) &&
             (opj_decode(codec, stream, planes) || partita_image_fail(image, "its pixels cannot be read")))
        partita_jp2_colors(image, planes);
    opj_image_destroy(planes);
    opj_destroy_codec(codec);
    opj_stream_destroy(stream);
}
#else
#define partita_image_jp2 NULL
#endif

/* ------------------------------------------------------------------ all of them */

typedef struct partita_image_format {
    const char *name, *package, *mark;
    int place, length; /* of the mark in what such an image begins with, in bytes */
    void (*decode)(partita_image *image);
} partita_image_format;

/* Decodes, or fails with the node's name. */
static inline void partita_decode(const partita_call *call, int32_t *status, partita_string node, partita_image *image) {
    static const partita_image_format formats[] = {
        {"BMP", "", "BM", 0, 2, partita_image_bmp},
        {"PNM", "", "P", 0, 1, partita_image_pnm},
        {"JPEG", "libturbojpeg0-dev", "\xff\xd8\xff", 0, 3, partita_image_jpeg},
        {"PNG", "libpng-dev", "\x89PNG", 0, 4, partita_image_png},
        {"TIFF", "libtiff-dev, 4.5 or later", "II*\0", 0, 4, partita_image_tiff},
        {"TIFF", "libtiff-dev, 4.5 or later", "MM\0*", 0, 4, partita_image_tiff},
        {"WebP", "libwebp-dev", "WEBP", 8, 4, partita_image_webp},
        {"JPEG 2000", "libopenjp2-7-dev", "jP  ", 4, 4, partita_image_jp2},
        {"JPEG 2000", "libopenjp2-7-dev", "\xff\x4f\xff\x51", 0, 4, partita_image_jp2},
    };
    const partita_image_format *format = formats, *const end = formats + sizeof formats / sizeof *formats;
    while (format < end && (image->bytes < 12 || memcmp(image->data + format->place, format->mark, (size_t)format->length)))
        ++format;
    const int length = (int)node.bytes;
    if (format == end)
        *status = call->services->fail(call, PARTITA_ERROR_VALUE,
                                       "%.*s: the data is no image, or none of BMP, PNM, JPEG, PNG, TIFF, WebP and JPEG 2000",
                                       length, node.data);
    else if (!format->decode)
        *status = call->services->fail(call, PARTITA_ERROR_BACKEND,
                                       "%.*s: the image is %s, whose library was not there when the model was compiled: "
                                       "install it (on Debian: %s), and compile the model again",
                                       length, node.data, format->name, format->package);
    else
        format->decode(image);
    if (image->problem[0])
        *status = call->services->fail(call, PARTITA_ERROR_VALUE, "%.*s: the %s image cannot be decoded: %s", length, node.data,
                                       format->name, image->problem);
}

static inline void partita_image_sizes(PARTITA_ROUTINE, const uint8_t *data, int64_t bytes, partita_string node,
                                       int64_t *sizes) {
    partita_image image = {.data = data, .bytes = bytes};
    partita_decode(call, status, node, &image);
    sizes[0] = image.height, sizes[1] = image.width;
}

static inline void partita_image_pixels(PARTITA_ROUTINE, const uint8_t *data, int64_t bytes, partita_string node,
                                        int64_t height, int64_t width, uint8_t *rgba) {
    partita_image image = {.data = data, .bytes = bytes, .height = height, .width = width, .rgba = rgba};
    partita_decode(call, status, node, &image);
}
#endif
