#include "model/registry.h"

#include <array>

#include "base/error.h"
#include "model/qwen3_moe.h"

namespace wideload::model {
namespace {

constexpr std::array<Family, 1> kFamilies = {{
    {"Qwen3MoeForCausalLM", "Qwen3-MoE", Qwen3MoeWeightBytes, LoadQwen3Moe},
}};

}  // namespace

std::span<const Family> Families() { return kFamilies; }

const Family& FindFamily(std::string_view architecture) {
  std::string known;
  for (const Family& family : kFamilies) {
    if (family.architecture == architecture) return family;
    known += known.empty() ? "" : ", ";
    known += family.architecture;
  }
  Throw(ErrorKind::kUnsupported, "config.json: architectures is {}; supported: {}", architecture,
        known);
}

}  // namespace wideload::model
