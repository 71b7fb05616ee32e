#include "model/model.h"

#include <algorithm>

namespace wideload::model {

void RankContext::MatMul(const TensorView& x, const compute::PackedMatrix& w, const TensorView& y,
                         bool accumulate) const {
  if (moe == nullptr || !moe->IsPolled()) return compute::MatMul(exec, x, w, y, accumulate);
  // Fewer rows would read the weights too often for what they compute; more let others wait.
  constexpr int64_t kRows = 64;
  for (int64_t begin = 0; begin < x.dim(0); begin += kRows) {
    const int64_t count = std::min(kRows, x.dim(0) - begin);
    compute::MatMul(exec, x.Rows(begin, count), w, y.Rows(begin, count), accumulate);
    Poll();
  }
}

}  // namespace wideload::model
