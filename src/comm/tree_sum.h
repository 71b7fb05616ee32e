// The order in which summands of ranks are added: neighbours in rank order, then the sums of
// neighbours, and so on. Pure.
#pragma once

#include <span>
#include <vector>

namespace wideload::comm {

// out[i] = ((s[0][i] + s[1][i]) + (s[2][i] + s[3][i])) + ..., summands.size() >= 1, each with
// out.size() values. `block` is scratch, grown where needed.
void TreeSum(std::span<const float* const> summands, std::span<float> out,
             std::vector<float>& block);

}  // namespace wideload::comm
