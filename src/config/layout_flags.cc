#include "config/layout_flags.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "base/error.h"
#include "config/number.h"

namespace wideload::config {
namespace {

// "--tp is 2", the option as the user called it.
std::string Said(const EngineFlags& flags, std::string_view option, int32_t value) {
  const auto source = flags.sources.find(option);
  const bool is_flag = source == flags.sources.end() || source->second == "command line";
  return fmt::format("{} is {}", is_flag ? option : std::string_view(source->second), value);
}

// How the ranks divide the attention, and the options that say so.
struct Attention {
  int32_t tp = 1;
  int32_t cp = 1;
  int32_t dp = 0;    // 0: as many as there are ranks for
  std::string said;  // empty: nothing

  int32_t group() const { return tp * cp; }  // ranks that share requests
};

Attention AttentionOf(const EngineFlags& flags) {
  Attention attention{.tp = std::max(flags.tp, 1), .cp = std::max(flags.cp, 1), .dp = flags.dp};
  const auto say = [&](std::string_view option, int32_t value) {
    if (value > 0)
      attention.said += (attention.said.empty() ? "" : " and ") + Said(flags, option, value);
  };
  say("--tp", flags.tp);
  say("--cp", flags.cp);
  say("--dp", flags.dp);
  if (8 % attention.cp != 0)
    Throw(ErrorKind::kInvalid, "{}; allowed are 1, 2, 4 and 8", Said(flags, "--cp", flags.cp));
  if (!flags.attention_dp) return attention;
  if (flags.tp > 0 && flags.dp > 0 && flags.tp != flags.dp)
    Throw(ErrorKind::kInvalid,
          "{}; with --attention-dp (enable_attention_dp) each of the {} ranks has requests of its "
          "own: leave --dp away",
          attention.said, flags.tp);
  attention.dp = std::max(flags.tp, flags.dp);
  attention.tp = 1;
  return attention;
}

// What the options say of the experts; "" if nothing.
std::string SaidOfExperts(const EngineFlags& flags) {
  std::string said;
  if (flags.ep > 0) said = Said(flags, "--ep", flags.ep);
  if (flags.moe_tp > 0)
    said += (said.empty() ? "" : " and ") + Said(flags, "--moe-tp", flags.moe_tp);
  return said;
}

// The number of ranks, which processes settle where there are some.
int32_t NumRanks(const EngineFlags& flags, const Attention& attention, int32_t num_processes) {
  const bool is_said = !attention.said.empty();
  const int32_t num_ranks = is_said ? attention.group() * std::max(attention.dp, 1)
                                    : std::max(flags.ep, 1) * std::max(flags.moe_tp, 1);
  const std::string said = is_said ? attention.said : SaidOfExperts(flags);
  if (num_processes == 0) return num_ranks;
  if (attention.dp == 0) {  // as many groups as the processes are
    if (is_said && num_processes % attention.group() == 0) return num_processes;
    if (!is_said && flags.ep == 0 && num_processes % num_ranks == 0) return num_processes;
  }
  if (num_ranks == num_processes) return num_ranks;
  const bool is_one = !is_said && (flags.ep == 0 || flags.moe_tp == 0);
  Throw(ErrorKind::kInvalid,
        "{}; {} processes were started together and each is a rank: leave {} away, or start {} "
        "processes",
        said, num_processes,
        is_one && flags.ep > 0 ? "--ep"
        : is_one               ? "--moe-tp"
                               : "it",
        num_ranks);
}

parallel::Layout StageLayout(const EngineFlags& flags, int32_t num_processes) {
  const Attention attention = AttentionOf(flags);
  const int32_t num_ranks = NumRanks(flags, attention, num_processes);
  const int32_t moe_tp = flags.moe_tp > 0 ? flags.moe_tp
                         : flags.ep > 0   ? std::max(num_ranks / flags.ep, 1)
                                          : 1;
  const int32_t moe_ep = flags.ep > 0 ? flags.ep : std::max(num_ranks / moe_tp, 1);
  if (moe_tp * moe_ep != num_ranks)
    Throw(ErrorKind::kInvalid,
          "{}, but {}: the experts lie on {} ranks, and --ep x --moe-tp must be as many",
          SaidOfExperts(flags), attention.said, num_ranks);
  return {.tp = attention.tp,
          .dp = num_ranks / attention.group(),
          .cp = attention.cp,
          .moe_tp = moe_tp,
          .moe_ep = moe_ep};
}

}  // namespace

parallel::Layout ResolveLayout(const EngineFlags& flags, int32_t num_processes) {
  const int32_t pp = std::max(flags.pp, 1);
  if (num_processes % pp != 0)
    Throw(ErrorKind::kInvalid,
          "{}; {} processes were started together, which are to be as many in each stage",
          Said(flags, "--pp", pp), num_processes);
  try {
    parallel::Layout layout = StageLayout(flags, num_processes / pp);
    layout.pp = pp;
    return layout;
  } catch (const Error& error) {
    if (pp == 1) throw;
    Throw(error.kind(), "in each of {} stages (--pp): {}", pp, error.what());
  }
}

std::vector<int32_t> StageSizes(const EngineFlags& flags) {
  std::vector<int32_t> sizes;
  for (std::string_view left = flags.pp_partition; !left.empty();) {
    const std::string_view number = left.substr(0, left.find(','));
    sizes.push_back(ParseNumber<int32_t>("--pp-partition", number, {.min = 1, .max = 1 << 20}));
    left.remove_prefix(std::min(left.size(), number.size() + 1));
    if (left.empty() && flags.pp_partition.back() == ',')
      Throw(ErrorKind::kInvalid, "--pp-partition is {}; it ends in a comma", flags.pp_partition);
  }
  return sizes;
}

int32_t NumMicroBatches(const EngineFlags& flags) {
  const int32_t pp = std::max(flags.pp, 1);
  if (flags.pp_micro_batches > pp)
    Throw(ErrorKind::kInvalid,
          "{} and {}; there are no more micro-batches at the same time than stages",
          Said(flags, "--pp-micro-batches", flags.pp_micro_batches), Said(flags, "--pp", pp));
  return flags.pp_micro_batches > 0 ? flags.pp_micro_batches : pp;
}

}  // namespace wideload::config
