// A model whose weights lie in one block of memory: measured, read once, and attached to by others
// that neither read nor write it.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>

#include "checkpoint/checkpoint.h"
#include "model/registry.h"
#include "model/transformer.h"
#include "support/test_data.h"
#include "support/test_engine.h"

namespace wideload {
namespace {

using model::LoadMode;

// Memory that can be made read-only.
class Block {
 public:
  explicit Block(int64_t num_bytes)
      : bytes_(static_cast<std::byte*>(::mmap(nullptr, static_cast<size_t>(num_bytes),
                                              PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                                              -1, 0)),
               static_cast<size_t>(num_bytes)) {}
  ~Block() { ::munmap(bytes_.data(), bytes_.size()); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  std::span<std::byte> bytes() const { return bytes_; }
  void Protect() { ASSERT_EQ(::mprotect(bytes_.data(), bytes_.size(), PROT_READ), 0); }

 private:
  std::span<std::byte> bytes_;
};

struct Loaded {
  std::unique_ptr<model::Model> model;
  int64_t stored_bytes = 0;
  uint64_t read_bytes = 0;
};

std::span<const std::byte> BytesOf(const Loaded& loaded, int32_t moe_index, int32_t expert) {
  return loaded.model->Experts(moe_index, 0)[static_cast<size_t>(expert)].bytes();
}

class SharedModel : public testing::Test {
 protected:
  Loaded Load(LoadMode mode, Arena* arena) {
    checkpoint::Checkpoint weights(folder_);
    ThreadPool pool("load", 2);
    Loaded loaded;
    model::WeightLoader loader(
        weights, {.kernels = kernels_,
                  .pool = mode == LoadMode::kRead ? &pool : nullptr,
                  .progress = [&](int64_t done,
                                  int64_t) { loaded.read_bytes = static_cast<uint64_t>(done); },
                  .mode = mode,
                  .arena = arena});
    loaded.model = model::LoadTransformer(reading_.spec, loader);
    loaded.stored_bytes = loader.stored_bytes();
    return loaded;
  }

  std::vector<testing_support::Outcome> Run(const model::Model& model) {
    runtime::Request request;
    request.prompt = {5, 17, 200, 31, 8};
    request.max_tokens = 12;
    request.prompt_logits = true;
    return testing_support::RunRequests(
        model, testing_support::TestOptions(reading_.config, kernels_), {request});
  }

  std::string folder_ = testing_support::SourcePath("testdata/models/tiny-qwen3-moe");
  model::ModelReading reading_ = model::ReadModel(folder_);
  compute::KernelSet kernels_ = compute::AutoKernelSet();
};

TEST_F(SharedModel, GivesTheSameLogitsToWhoeverAttaches) {
  const Loaded own = Load(LoadMode::kRead, nullptr);
  const Loaded measured = Load(LoadMode::kMeasure, nullptr);
  EXPECT_EQ(measured.read_bytes, 0);
  EXPECT_EQ(measured.stored_bytes, own.stored_bytes);
  EXPECT_EQ(measured.model->weight_bytes(), own.model->weight_bytes());
  EXPECT_GE(measured.stored_bytes, own.model->weight_bytes());  // pieces are aligned

  Block block(measured.stored_bytes);
  Arena written(block.bytes());
  const Loaded read = Load(LoadMode::kRead, &written);
  EXPECT_EQ(read.stored_bytes, measured.stored_bytes);
  block.Protect();
  Arena found(block.bytes());
  const Loaded attached = Load(LoadMode::kAttach, &found);
  EXPECT_EQ(attached.read_bytes, 0);
  EXPECT_EQ(attached.model->weight_bytes(), own.model->weight_bytes());

  const auto wanted = Run(*own.model);
  ASSERT_EQ(wanted[0].tokens.size(), 12);
  EXPECT_TRUE(Run(*read.model) == wanted);
  EXPECT_TRUE(Run(*attached.model) == wanted);
}

TEST_F(SharedModel, HoldsOnlyTheExpertsThatARankOwns) {
  const auto load = [&](LoadMode mode, bool is_partial) {
    checkpoint::Checkpoint weights(folder_);
    ThreadPool pool("load", 2);
    model::LoadOptions options{.kernels = kernels_, .pool = &pool, .mode = mode};
    if (is_partial) options.owns = [](int32_t, int32_t expert) { return expert % 4 == 1; };
    Loaded loaded;
    model::WeightLoader loader(weights, options);
    loaded.model = model::LoadTransformer(reading_.spec, loader);
    loaded.stored_bytes = loader.stored_bytes();
    return loaded;
  };
  const Loaded all = load(LoadMode::kRead, false);
  const Loaded part = load(LoadMode::kRead, true);
  const auto expert_bytes = static_cast<int64_t>(BytesOf(all, 0, 0).size());
  const int32_t layers = reading_.spec.moe.num_layers();
  int64_t num_left_out = 0;
  for (int32_t layer = 0; layer < layers; ++layer)
    for (int32_t expert = 0; expert < reading_.config.num_experts; ++expert) {
      const std::span<const std::byte> bytes = BytesOf(part, layer, expert);
      if (expert % 4 != 1) {
        EXPECT_TRUE(bytes.empty()) << layer << ", " << expert;
        ++num_left_out;
        continue;
      }
      EXPECT_TRUE(std::ranges::equal(bytes, BytesOf(all, layer, expert)))
          << layer << ", " << expert;
    }
  EXPECT_EQ(num_left_out, layers * 12);
  EXPECT_EQ(part.model->weight_bytes(), all.model->weight_bytes() - num_left_out * expert_bytes);
  EXPECT_EQ(load(LoadMode::kMeasure, true).stored_bytes, part.stored_bytes);
  EXPECT_EQ(part.stored_bytes, all.stored_bytes - num_left_out * expert_bytes);
}

}  // namespace
}  // namespace wideload
