// The weights of a Hugging Face folder: one or many safetensors files seen as one set of named
// tensors. The files are memory-mapped; nothing is read before it is used. Thread-safe once
// constructed.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/thread_pool.h"
#include "tensor/safetensors.h"

namespace wideload::checkpoint {

class Checkpoint {
 public:
  // Opens folder/model.safetensors, or every shard that folder/model.safetensors.index.json names.
  // Errors: kNotFound when the folder, all weights or a shard are missing; kUnsupported for GGUF
  // and pickle weights, with what to use instead; kCorrupt when index and shards disagree about
  // where a tensor lies, and for everything SafetensorsFile refuses.
  explicit Checkpoint(const std::string& folder);
  // Of a folder without weights: no tensor.
  struct NoWeights {};
  Checkpoint(const std::string& folder, NoWeights /*tag*/) : folder_(folder) {}
  Checkpoint(const Checkpoint&) = delete;
  Checkpoint& operator=(const Checkpoint&) = delete;

  // Whether there is a tensor of that name.
  bool Has(std::string_view name) const { return tensors_.contains(name); }
  // A view of the mapped bytes, valid as long as this object; marks the tensor as used. Errors:
  // kNotFound naming folder and tensor.
  TensorView Get(std::string_view name) const;
  // Get, and kInvalid naming file, tensor, found and allowed unless the shape (and dtype) are
  // these.
  TensorView Get(std::string_view name, const Shape& shape) const;
  TensorView Get(std::string_view name, DType dtype, const Shape& shape) const;

  // The tensor without marking it as used. Errors: as Get.
  const TensorView& Peek(std::string_view name) const;
  // Path of the file that holds the tensor. Errors: as Get.
  const std::string& FileOf(std::string_view name) const;
  // All names, sorted; those that no Get has asked for. Valid as long as this object.
  std::vector<std::string_view> Names() const;
  // Tensors that nobody asked for, by name.
  std::vector<std::string_view> UnusedTensors() const;
  // Of all tensors, as stored.
  uint64_t TotalBytes() const;
  // Gives the pages of the files that were read back to the machine; those that are used again are
  // read again. No other thread may be reading.
  void GiveBackPages() const;
  const std::string& folder() const { return folder_; }
  int num_files() const { return static_cast<int>(files_.size()); }

 private:
  struct Entry {
    const TensorView* view;  // of the file
    uint32_t file;
    mutable std::atomic<bool> used{false};
    Entry(const TensorView& v, size_t f) : view(&v), file(static_cast<uint32_t>(f)) {}
  };
  const Entry& Find(std::string_view name) const;
  std::string Hint(std::string_view name) const;
  void OpenSingle(const std::string& path);
  void OpenShards(const std::string& index_path);
  void AddShard(const std::string& shard, const std::map<std::string, std::string>& shard_of);

  std::string folder_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string_view, Entry> tensors_;  // names and views are those of the files
};

// Whether the folder has model.safetensors or an index of shards, whatever they hold.
bool HasWeights(const std::string& folder);

// Looks at every element of the floating-point tensors `names` (empty: all) and refuses NaN and
// infinity: kCorrupt naming file, tensor and index, always the first in name order whatever the
// number of threads. Shows progress on stderr.
void CheckWeights(const Checkpoint& checkpoint, std::span<const std::string_view> names,
                  ThreadPool& pool);

}  // namespace wideload::checkpoint
