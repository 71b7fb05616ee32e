// A quantised checkpoint as one that is not: the same model in a folder of its own, every weight
// multiplied out to fp32. What bf16 arithmetic makes of it is the yardstick for what it makes of
// the stored weights.
#pragma once

#include <string>

namespace wideload::testing_support {

// Writes config.json (without quantization_config) and model.safetensors into `to` (created). Knows
// fp8 blocks, int4 groups and the MXFP4 blocks of fused experts.
void WriteDequantized(const std::string& from, const std::string& to);

}  // namespace wideload::testing_support
