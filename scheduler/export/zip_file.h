/* zip_file.h - writes a zip archive of stored (uncompressed) members to a stream that need not be seekable.
 *
 * Why not a library: stored members are two headers and a CRC.  libzip would do it, and brings a compressor for each
 * of five formats and a cryptographic library; minizip wants a file's name.  After APPNOTE.TXT 6.3.10, with Zip64
 * records where a number needs them.
 */
#ifndef SCHEDULER_EXPORT_ZIP_FILE_H
#define SCHEDULER_EXPORT_ZIP_FILE_H

#include <stdint.h>
#include <stdio.h>

struct zip_file;

/* zip64_from: sizes and offsets from here on are written as Zip64; 0: where they must be. */
struct zip_file *zip_file_open(FILE *out, uint64_t zip64_from);

/* A member: its size and the CRC-32 of its bytes, which the caller writes to the stream next. */
void zip_file_member(struct zip_file *zip, const char *name, uint64_t n_bytes, uint32_t crc);

/* The directory, after the last member; frees zip.  Errors are the stream's (ferror). */
void zip_file_end(struct zip_file *zip);
void zip_file_abandon(struct zip_file *zip); /* frees only; NULL is allowed */

/* CRC-32 (ISO-HDLC) of more bytes; begins with 0. */
uint32_t zip_crc(uint32_t crc, const void *bytes, size_t n_bytes);

#endif
