// A small Qwen3-MoE with random weights whose dimensions are multiples of nothing: 20 experts
// top-5, head size 24, hidden 40, vocabulary 331, a dense layer between, its own output head. Made
// from a seed.
#pragma once

#include <cstdint>
#include <string>

namespace wideload::testing_support {

// Writes config.json and model.safetensors into `folder` (created). The same seed gives the same
// bytes.
void WriteRandomModel(const std::string& folder, uint64_t seed);

// A folder that is removed at the end of the test program.
std::string TemporaryFolder(const std::string& name);

}  // namespace wideload::testing_support
