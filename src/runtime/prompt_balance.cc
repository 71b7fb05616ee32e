#include "runtime/prompt_balance.h"

namespace wideload::runtime {

bool PromptBalance::HoldsPrompts(const GroupsWork& work) {
  if (!options_.enable_balance || work.num_groups == 1) return false;
  const int64_t num_without = work.num_groups - work.num_with_prompts;
  const bool is_any = work.num_with_prompts + work.num_waiting > 0;
  const bool has_every_one = work.num_full == 0 && work.num_waiting >= num_without;
  int64_t& num_held = has_every_one ? num_batched_ : num_waited_;
  const int64_t most = has_every_one ? options_.batching_wait_iters : options_.timeout_iters;
  if (is_any && work.num_with_decodes == work.num_groups && num_held < most) {
    ++num_held;
    return true;
  }
  num_waited_ = num_batched_ = 0;
  return false;
}

}  // namespace wideload::runtime
