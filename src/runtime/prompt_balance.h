// Whether prompts wait until every group of ranks has one. Groups compute an iteration together, so
// a prompt in one of them has the others, which only decode, wait for it; prompts of all groups in
// the same iteration cost them once. Pure; used by one thread.
// Source: TensorRT-LLM's attention_dp_config, whose names and defaults these are.
#pragma once

#include <cstdint>

namespace wideload::runtime {

// Source: TensorRT-LLM's attention_dp_config.
struct PromptBalanceOptions {
  bool enable_balance = false;
  int64_t timeout_iters = 50;        // that prompts wait for groups without one
  int64_t batching_wait_iters = 10;  // that they go on waiting once every group has one
};

// What groups that compute an iteration together have to do.
struct GroupsWork {
  int64_t num_groups = 1;
  int64_t num_with_prompts = 0;
  int64_t num_with_decodes = 0;
  int64_t num_full = 0;     // with no place for one more request
  int64_t num_waiting = 0;  // requests that no group has yet, each of which can go to any
};

class PromptBalance {
 public:
  explicit PromptBalance(const PromptBalanceOptions& options) : options_(options) {}

  // Once an iteration, before it is planned: true when it is to decode only. Never when a group has
  // nothing to decode, and never for longer than the options say.
  bool HoldsPrompts(const GroupsWork& work);

 private:
  PromptBalanceOptions options_;
  int64_t num_waited_ = 0;   // iterations in a row, in which a group had no prompt
  int64_t num_batched_ = 0;  // likewise, in which every group had one
};

}  // namespace wideload::runtime
