// Memory for tensors: a 64-byte aligned Buffer, an Arena that cuts a block into Buffers, and a
// Workspace for the scratch of one iteration.
// Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tensor/tensor_view.h"

namespace wideload {

// Where a Buffer's memory comes from instead of the host: an accelerator, or memory that one
// reaches.
class MemorySource {
 public:
  virtual ~MemorySource() = default;
  // Zero-filled, at least 64-byte aligned. Errors: kResource.
  virtual std::byte* Allocate(int64_t num_bytes) = 0;
  // What Allocate gave for this many bytes.
  virtual void Free(std::byte* data, int64_t num_bytes) noexcept = 0;
};

// Host memory, zero-filled, 64-byte aligned. From 4 MiB up it is mapped, and touched only when
// used. Move-only.
class Buffer {
 public:
  Buffer() = default;
  // Of the host, or of `source`, which must outlive it. Errors: kResource when it is refused.
  explicit Buffer(int64_t num_bytes, MemorySource* source = nullptr);
  // A view of memory that somebody else owns, 64-byte aligned; it must outlive the buffer.
  static Buffer Over(std::span<std::byte> memory);
  // Room for a dense tensor, not initialised.
  Buffer(DType dtype, const Shape& shape, MemorySource* source = nullptr)
      : Buffer(shape.num_elements() * DTypeBytes(dtype), source) {}
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;

  std::byte* data() const { return data_; }
  int64_t num_bytes() const { return num_bytes_; }
  // The first bytes as a dense tensor, which must fit.
  TensorView View(DType dtype, const Shape& shape) const;

 private:
  std::byte* data_ = nullptr;
  int64_t num_bytes_ = 0;
  bool is_view_ = false;
  MemorySource* source_ = nullptr;
};

// Pieces of one block of memory, handed out in order: the same calls over copies of a block, or
// over one block that processes share, give the same pieces. The block must outlive them.
class Arena {
 public:
  // From the begin of the block on.
  explicit Arena(std::span<std::byte> block) : block_(block) {}

  // A 64-byte aligned piece, as a view. The block must have room for it.
  Buffer Take(int64_t num_bytes);
  // What a piece takes of a block that begins 64-byte aligned.
  static int64_t PieceBytes(int64_t num_bytes);

 private:
  std::span<std::byte> block_;
  int64_t used_bytes_ = 0;
};

// Scratch memory of one iteration: Take hands out 64-byte aligned pieces, Reset takes all of them
// back, a Scope those of its time. Once an iteration's need has been seen, later ones allocate
// nothing. Pieces stay valid until they are taken back.
class Workspace {
  // How far it is handed out.
  struct Place {
    size_t block = 0;  // this one's first bytes, and all of those before it
    int64_t in_block = 0;
    int64_t total = 0;
  };

 public:
  // Of the host's memory, or of that of `source`, which must outlive it.
  explicit Workspace(MemorySource* source = nullptr) : source_(source) {}
  // `count` elements, 64-byte aligned, not initialised; valid until Reset or the end of the scope.
  template <class T>
  std::span<T> Take(int64_t count) {
    return {reinterpret_cast<T*>(TakeBytes(count * static_cast<int64_t>(sizeof(T)))),
            static_cast<size_t>(count)};
  }
  // The same for a dense tensor.
  TensorView TakeTensor(DType dtype, const Shape& shape) {
    return TensorView(dtype, shape, TakeBytes(shape.num_elements() * DTypeBytes(dtype)));
  }
  // Takes everything back; what was taken becomes invalid.
  void Reset();

  // Takes back at its end all that was handed out since its begin. Scopes nest.
  class Scope {
   public:
    // From here on; `workspace` must outlive this object.
    explicit Scope(Workspace& workspace) : workspace_(workspace), begin_(workspace.at_) {}
    ~Scope() { workspace_.at_ = begin_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Workspace& workspace_;
    Place begin_;
  };

  int64_t num_allocations() const { return num_allocations_; }
  // Bytes held, used or not.
  int64_t capacity_bytes() const;

 private:
  std::byte* TakeBytes(int64_t num_bytes);

  MemorySource* source_;
  std::vector<Buffer> blocks_;  // after Reset one block that holds the largest iteration
  Place at_;
  int64_t most_total_ = 0;  // of an iteration
  int64_t num_allocations_ = 0;
};

}  // namespace wideload
