// The activation of a gated MLP. Plain values; included by kernels, so free of functions.
#pragma once

namespace wideload::compute {

// gate' = min(gate, limit), up' = clamp(up, -limit, limit); the result is gate' * sigmoid(alpha *
// gate') * (up' + up_offset). The default is SiLU(gate) * up; GPT-OSS has alpha 1.702, its
// swiglu_limit and up_offset 1. NaN stays NaN.
struct GatedActivation {
  float alpha = 1;
  float limit = __builtin_inff();
  float up_offset = 0;
};

}  // namespace wideload::compute
