#include "checkpoint/model_config.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"

namespace wideload::checkpoint {
namespace {

std::string SourceDir() {
  const char* folder = std::getenv("WIDELOAD_SOURCE_DIR");
  return folder != nullptr ? folder : ".";
}

std::string TestModel() { return SourceDir() + "/testdata/models/tiny-qwen3-moe"; }

TEST(ModelConfig, BothSpellingsOfTransformersSayTheSame) {
  const ModelConfigReading older =
      ParseModelConfig(ReadFile(TestModel() + "/config.json"), "config.json");
  const ModelConfigReading newer =
      ParseModelConfig(ReadFile(TestModel() + "/config.transformers5.json"), "config.json");
  EXPECT_EQ(older.config, newer.config);
  EXPECT_TRUE(older.unsupported.empty());
  EXPECT_TRUE(newer.unsupported.empty());
  EXPECT_EQ(older.config.num_experts, 16);
  EXPECT_EQ(older.config.rope.theta, 1e6);
  EXPECT_EQ(older.config.dtype, DType::kBF16);
}

}  // namespace
}  // namespace wideload::checkpoint
