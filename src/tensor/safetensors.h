// The safetensors container: u64 header length, JSON header, raw row-major data. Reading maps the
// file; every offset, overlap, shape and dtype is checked before a tensor can be seen. Reading is
// thread-safe once constructed. Source: the format's public specification
// (github.com/huggingface/safetensors).
#pragma once

#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "tensor/buffer.h"
#include "tensor/tensor_view.h"

namespace wideload {

class SafetensorsFile {
 public:
  // Errors: kNotFound, kIo; kCorrupt naming file, tensor, found and allowed: truncated file, header
  // beyond the file or over 100 MiB, offsets outside the data, overlapping or leaving gaps, bytes
  // that are not shape x dtype, duplicate names; kUnsupported for an unknown dtype, and for a
  // GGUF or pickle file by name with what to use instead. Memory: the mapping; tensors whose offset
  // is no multiple of their element size, which the format allows, are copied.
  explicit SafetensorsFile(const std::string& path);
  // The same over bytes in memory, which must outlive this object; `name` is used in messages.
  SafetensorsFile(std::span<const std::byte> bytes, std::string name);

  const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::string& path() const { return path_; }
  // MappedFile::GiveBackPages of the file.
  void GiveBackPages() const { file_.GiveBackPages(); }
  // Whether there is a tensor of that name.
  bool Has(const std::string& name) const { return tensors_.contains(name); }
  // Errors: kNotFound naming file and tensor.
  TensorView Get(const std::string& name) const;
  // Get, and kInvalid unless dtype and shape are these.
  TensorView Get(const std::string& name, DType dtype, const Shape& shape) const;

 private:
  void Parse(std::span<const std::byte> bytes);
  // Gives tensors that the writer left unaligned memory of their own.
  void CopyUnaligned();

  MappedFile file_;
  std::vector<Buffer> aligned_copies_;
  std::string path_;
  std::map<std::string, TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

// A tensor to be written, without its bytes.
struct TensorLayout {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
};
// What a file of these tensors begins with, up to the first byte of the first: they follow each
// other in this order, from a multiple of 8 on. Names must be distinct.
std::string SafetensorsHeader(std::span<const TensorLayout> tensors,
                              const std::map<std::string, std::string>& metadata = {});

// Writes tensors in the order given (names must be distinct), the first aligned to 8 bytes; appears
// whole or not at all. The same input gives the same bytes. Errors: kIo.
void WriteSafetensors(const std::string& path,
                      std::span<const std::pair<std::string, TensorView>> tensors,
                      const std::map<std::string, std::string>& metadata = {});

}  // namespace wideload
