// A model whose weights lie in one block of memory: measured, read once, and attached to by others
// that neither read nor write it.
#include <gtest/gtest.h>
#include <sys/mman.h>

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
    loaded.model =
        model::LoadTransformer(reading_.spec, loader, reading_.config.max_position_embeddings);
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
  EXPECT_GT(measured.stored_bytes, own.model->weight_bytes());

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

}  // namespace
}  // namespace wideload
