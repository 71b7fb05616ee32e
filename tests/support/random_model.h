// Small models of every family with random weights, whose dimensions are multiples of nothing:
// hidden 40, head sizes of 24 and less, vocabulary 331, 20 experts. Made from a seed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace wideload::testing_support {

// Writes config.json and model.safetensors of a Qwen3-MoE (20 experts, top-5, a dense layer
// between, its own output head) into `folder` (created). The same seed gives the same bytes.
void WriteRandomModel(const std::string& folder, uint64_t seed);

// The same with 8 heads, 2 KV heads, 8 layers and 16 experts: what 8 ranks can divide.
void WriteLayoutModel(const std::string& folder, uint64_t seed);

// The same for each family whose layers differ from it, into folders of their own that are removed
// at the end of the program. Returns the folders.
std::vector<std::string> WriteRandomFamilies(uint64_t seed);

// A folder that is removed at the end of the test program.
std::string TemporaryFolder(const std::string& name);

}  // namespace wideload::testing_support
