#include "start_line.h"

#include <fmt/format.h>

#include "base/memory.h"
#include "kv/paged_cache.h"

namespace wideload::apps {
namespace {

std::string CopiesText(const Session& session) {
  const int64_t bytes = SlotBytes(session.spec, session.bytes, session.engine->options());
  if (bytes == 0) return "";
  return fmt::format(", each slot a copy ({} per rank)", FormatBytes(static_cast<uint64_t>(bytes)));
}

// What moves experts while requests run, or why nothing does.
std::string BalancerText(const EngineFlags& flags, const Session& session) {
  const runtime::EngineOptions& options = session.engine->options();
  const rebalance::OnlineOptions& online = options.rebalance;
  if (session.config.num_experts == 0) return "none (no experts)";
  if (online.mode == rebalance::Mode::kOff)
    return flags.rebalance.empty() || flags.rebalance == "off"
               ? "off"
               : fmt::format("off (num_slots is 0 in {})", flags.placement);
  if (options.num_ranks() == 1) return "none (one rank)";
  const auto bytes = [&](int64_t num_slots) {
    return FormatBytes(static_cast<uint64_t>(num_slots * session.bytes.expert));
  };
  if (online.mode == rebalance::Mode::kRandom) return flags.rebalance;
  if (online.mode == rebalance::Mode::kTensorRtLlm)
    return fmt::format("tensorrt_llm, {} layers at a time (up to {})",
                       online.layer_updates_per_iter,
                       bytes(int64_t{online.layer_updates_per_iter} * options.num_slots));
  return fmt::format("repair, up to {} slots ({}) at a time", online.max_fetched_slots_per_iter,
                     bytes(online.max_fetched_slots_per_iter));
}

std::string RanksText(const parallel::Layout& layout) {
  if (layout.tp == 1) return fmt::format("{} ranks", layout.world());
  if (layout.dp == 1) return fmt::format("{} ranks that share attention", layout.world());
  return fmt::format("{} ranks that share attention by {}", layout.world(), layout.tp);
}

}  // namespace

std::string StartLine(const EngineFlags& flags, const Session& session) {
  const runtime::EngineOptions& options = session.engine->options();
  const checkpoint::ModelConfig& c = session.config;
  const std::string layout =
      c.num_experts == 0 ? "no experts"
      : options.num_ranks() == 1 && options.num_slots == c.num_experts
          ? "all experts on one rank"
          : fmt::format("{} slots for {} experts, placement {}, split {}{}", options.num_slots,
                        c.num_experts, flags.placement, flags.split, CopiesText(session));
  const std::string places =
      session.links ? fmt::format(" in processes ({})", session.links->text()) : "";
  return fmt::format(
      "{} ({}): {} x {} threads{}, kernels {}, context {}, weights {}, KV for {} tokens per "
      "rank, {}; online balancer: {}",
      session.folder, session.family, RanksText(options.layout), options.threads_per_rank, places,
      KernelSetName(session.kernels), session.context,
      FormatBytes(static_cast<uint64_t>(session.model->weight_bytes())),
      options.num_kv_blocks * kv::kBlockTokens, layout, BalancerText(flags, session));
}

}  // namespace wideload::apps
