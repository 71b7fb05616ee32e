// Some neighbouring ranks of a Fabric as one of their own: the exchange of a pipeline's stage.
#pragma once

#include "exchange/fabric.h"

namespace wideload::exchange {

class FabricPart final : public Fabric {
 public:
  // Ranks [first, first + size) of `whole`, which outlives the part and whose rank is one of them;
  // it is used for nothing else.
  FabricPart(Fabric& whole, int first, int size) : whole_(whole), first_(first), size_(size) {}

  int rank() const override { return whole_.rank() - first_; }
  int size() const override { return size_; }
  int64_t segment_bytes() const override { return whole_.segment_bytes(); }
  std::byte* Window(int dst, int64_t offset) const override {
    return whole_.Window(first_ + dst, offset);
  }
  bool IsReachable(int dst) const override { return whole_.IsReachable(first_ + dst); }
  void Signal(int dst, const Message& message) override { whole_.Signal(first_ + dst, message); }
  void Expect(int source, const Message& message) override {
    whole_.Expect(first_ + source, message);
  }
  bool Test(int64_t cell, uint32_t tag) override { return whole_.Test(cell, tag); }
  bool Wait(int64_t cell, uint32_t tag, FunctionRef<bool()> keep_waiting) override {
    return whole_.Wait(cell, tag, keep_waiting);
  }

 private:
  Fabric& whole_;
  int first_;
  int size_;
};

}  // namespace wideload::exchange
