// All experts of a checkpoint as a kernel set reads them, in one file that ranks map: for experts
// that memory does not hold, and for a start that packs nothing. The file appears whole or not at
// all, and is refused by name where it was made from something else. Used by one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "tensor/buffer.h"

namespace wideload::model {

// What a file was made from. Two files of the same key hold the same bytes.
struct PackedKey {
  std::string kernels;     // name of the kernel set; at most 31 bytes
  std::string checkpoint;  // fingerprint; at most 63 bytes
  std::vector<int32_t> layers;
  std::vector<std::vector<int64_t>> expert_bytes;  // [MoE layers][E]
};

// The first bytes of a file of this key: magic "wloadpkd", version, sizes, names, the tables of
// layers and bytes, and a fingerprint of all that; a multiple of 4096. Experts follow in order,
// each 64-byte aligned. Little-endian.
std::vector<std::byte> PackedHeader(const PackedKey& key);
// Why a file that begins with `bytes` (of `file_bytes`) is none of this key, for people; "" when it
// is one.
std::string PackedMismatch(std::span<const std::byte> bytes, uint64_t file_bytes,
                           const PackedKey& key);

// Writes a file, expert by expert.
class PackedFileWriter {
 public:
  // Errors: as WholeFileWriter.
  PackedFileWriter(const std::string& path, PackedKey key);
  // Zero bytes to pack the expert into, which is written by the next call of either function;
  // experts in order. Errors: kIo.
  Buffer Next(int32_t moe_index, int32_t expert);
  // After the last expert: the file is there. Errors: kIo.
  void Commit();

 private:
  void WriteLast();

  PackedKey key_;
  WholeFileWriter file_;
  std::vector<std::vector<int64_t>> offsets_;  // [MoE layers][E]
  Buffer scratch_;                             // of the largest expert
  int64_t last_offset_ = -1;                   // where what is in scratch_ goes
  int64_t last_bytes_ = 0;
  int64_t num_written_ = 0;
};

class PackedFile {
 public:
  // Maps the file. Errors: as MappedFile; kInvalid when it is not of this key, saying how it
  // differs.
  PackedFile(const std::string& path, const PackedKey& key);
  // The expert's bytes, to read only; valid as long as the file.
  Buffer BytesOf(int32_t moe_index, int32_t expert) const;
  int64_t num_bytes() const { return static_cast<int64_t>(file_.bytes().size()); }

 private:
  MappedFile file_;
  std::vector<std::vector<int64_t>> expert_bytes_;  // [MoE layers][E]
  std::vector<std::vector<int64_t>> offsets_;       // [MoE layers][E]
};

}  // namespace wideload::model
