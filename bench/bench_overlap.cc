// What overlapping chunks hide of a slow medium: a layer's experts on two ranks with a core each,
// whose messages arrive late, with the chunks one after the other and overlapped, in turns; and
// what chunks cost where nothing is late.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <deque>
#include <map>
#include <mutex>

#include "bench_timing.h"
#include "comm/local/local_communicator.h"
#include "comm/local/rank_threads.h"
#include "compute/testing.h"
#include "exchange/local_fabric.h"
#include "moe/moe_runner.h"
#include "random_experts.h"

namespace wideload {
namespace {

using Clock = std::chrono::steady_clock;
using compute::OwnedTensor;

constexpr int kRanks = 2;
constexpr int64_t kHidden = 512;
constexpr int64_t kInner = 512;
constexpr int32_t kExperts = 16;
constexpr int64_t kTokens = 1024;  // of each rank
constexpr int kLayersPerSample = 4;
constexpr double kDelayOfChunk = 0.6;  // a message is late by that part of a chunk's computation

// Announcements that arrive `delay` after they were made, in their order. Thread-safe.
class LateDelivery {
 public:
  explicit LateDelivery(Clock::duration delay)
      : delay_(delay), thread_(StartThread("delivery", [this] { ThreadMain(); })) {}
  ~LateDelivery() {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    changed_.notify_one();
  }

  void Signal(exchange::Fabric& fabric, int dst, const exchange::Fabric::Message& message) {
    if (delay_.count() == 0 || dst == fabric.rank()) return fabric.Signal(dst, message);
    const std::lock_guard lock(mutex_);
    announced_.push_back({&fabric, dst, message, Clock::now() + delay_});
    changed_.notify_one();
  }

 private:
  struct Announced {
    exchange::Fabric* fabric = nullptr;
    int dst = 0;
    exchange::Fabric::Message message;
    Clock::time_point due;
  };

  void ThreadMain() {
    std::unique_lock lock(mutex_);
    while (!stop_) {
      if (announced_.empty()) {
        changed_.wait(lock);
        continue;
      }
      const Announced next = announced_.front();
      if (Clock::now() < next.due) {
        changed_.wait_until(lock, next.due);
        continue;
      }
      announced_.pop_front();
      next.fabric->Signal(next.dst, next.message);
    }
  }

  Clock::duration delay_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<Announced> announced_;
  bool stop_ = false;
  std::jthread thread_;
};

class LateFabric final : public exchange::Fabric {
 public:
  LateFabric(Fabric& inner, LateDelivery& delivery) : inner_(inner), delivery_(delivery) {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  int64_t segment_bytes() const override { return inner_.segment_bytes(); }
  std::byte* Window(int dst, int64_t offset) const override { return inner_.Window(dst, offset); }
  bool IsReachable(int dst) const override { return inner_.IsReachable(dst); }
  void Signal(int dst, const Message& message) override { delivery_.Signal(inner_, dst, message); }
  void Expect(int source, const Message& message) override { inner_.Expect(source, message); }
  bool Test(int64_t cell, uint32_t tag) override { return inner_.Test(cell, tag); }
  bool Wait(int64_t cell, uint32_t tag, FunctionRef<bool()> keep_waiting) override {
    return inner_.Wait(cell, tag, keep_waiting);
  }

 private:
  Fabric& inner_;
  LateDelivery& delivery_;
};

// One layer with experts, and both ranks' tokens.
struct Layer {
  compute::KernelSet kernels = compute::AutoKernelSet();
  moe::MoeShape shape{
      .hidden = kHidden, .num_experts = kExperts, .router = {.top_k = 2}, .layers = {0}};
  moe::MoeWeights weights;
  std::vector<OwnedTensor> x;  // [ranks]

  Layer() {
    ThreadPool pool("pack", 2);
    weights = bench::RandomExperts(kernels, shape, kInner, pool);
    for (uint32_t r = 0; r < kRanks; ++r)
      x.push_back(compute::RandomTensor(DType::kF32, {kTokens, kHidden}, 5 + r));
  }
};

struct Variant {
  int64_t num_chunks = 1;
  bool is_overlapped = false;
  Clock::duration delay{};

  auto operator<=>(const Variant&) const = default;
};

// Seconds that a layer takes.
double Measure(const Layer& layer, const Variant& variant) {
  moe::MoeLayout layout{.num_ranks = kRanks,
                        .num_slots = kExperts,
                        .chunk_tokens = kTokens / variant.num_chunks,
                        .num_buffers = variant.is_overlapped ? moe::kOverlappedChunks : 1};
  const auto shape =
      moe::MakeExchangeShape(layer.shape, layout, compute::PrecisionOf(layer.kernels));
  const auto table =
      moe::MakePlacementTable(0, {eplb::ContiguousPlacement(kExperts, kExperts, kRanks)});
  const moe::HostExperts experts = {layer.weights.experts};
  comm::LocalGroup group(kRanks, {});
  exchange::LocalFabrics fabrics(kRanks, exchange::SegmentBytes(shape));
  LateDelivery delivery(variant.delay);
  double seconds = 0;
  const auto outcome = comm::RunRanks(group, [&](comm::Communicator& rank) {
    LateFabric fabric(fabrics.rank(rank.rank()), delivery);
    ThreadPool pool("rank", 1);
    exchange::Exchange exchange(shape, fabric, rank, &pool);
    moe::SlotStore slots(experts, *table, {.rank = rank.rank(), .ep_rank = rank.rank()});
    moe::MoeRunner runner(layer.shape, layout,
                          {.exchange = exchange, .group = rank, .slots = slots}, table);
    Workspace workspace;
    const OwnedTensor h(DType::kF32, {kTokens, kHidden});
    const auto run = [&] {
      workspace.Reset();
      runner.Forward({layer.kernels, &pool}, workspace, 0, layer.weights,
                     layer.x[static_cast<size_t>(rank.rank())].view(), h.view());
    };
    run();
    run();
    rank.Barrier();
    const auto begin = Clock::now();
    for (int i = 0; i < kLayersPerSample; ++i) run();
    if (rank.rank() == 0)
      seconds = std::chrono::duration<double>(Clock::now() - begin).count() / kLayersPerSample;
  });
  if (!outcome.ok()) Throw(ErrorKind::kRunFailed, "{}", outcome.error);
  return seconds;
}

// Each variant once a round, so that what else the machine does meets all of them.
std::map<Variant, double> MeasureAll(const Layer& layer, const std::vector<Variant>& variants,
                                     int rounds) {
  std::map<Variant, std::vector<double>> samples;
  for (int i = 0; i < rounds; ++i)
    for (const Variant& variant : variants) samples[variant].push_back(Measure(layer, variant));
  std::map<Variant, double> medians;
  for (const auto& [variant, seconds] : samples) medians[variant] = bench::Median(seconds);
  return medians;
}

void Run(int rounds) {
  const Layer layer;
  std::printf("%lld tokens a rank, 2 ranks of a thread each, medians of %d interleaved rounds\n",
              static_cast<long long>(kTokens), rounds);
  for (const int64_t chunks : {4, 8}) {
    const auto at = [&](bool is_overlapped, Clock::duration delay) {
      return Variant{chunks, is_overlapped, delay};
    };
    const double alone = MeasureAll(layer, {at(false, {})}, 3).begin()->second;
    // A chunk's computation takes longer.
    const auto delay = std::chrono::duration_cast<Clock::duration>(
        std::chrono::duration<double>(kDelayOfChunk * alone / static_cast<double>(chunks)));
    const std::vector<Variant> variants = {
        {}, at(false, {}), at(true, {}), at(false, delay), at(true, delay)};
    auto seconds = MeasureAll(layer, variants, rounds);
    const double shown = seconds[variants[3]] - seconds[variants[1]];
    const double left = seconds[variants[4]] - seconds[variants[2]];
    // Of the delays that the same chunks show in turn, 3 each: the first counts, and at both ends
    // what a delay is longer than the rank's own rows, half of a chunk's, take.
    constexpr double kOwnRows = 0.5 / kDelayOfChunk;
    constexpr double kShownDelays = 1 + 2 * (kOwnRows < 1 ? 1 - kOwnRows : 0);
    std::printf(
        "%lld chunks: %.2f ms overlapped, %.2f ms one after the other, %.2f ms in one chunk "
        "(chunks cost %+.1f %%); messages %.2f ms late: +%.2f ms one after the other, +%.2f ms "
        "overlapped: %.0f %% hidden (bound %.0f %%)\n",
        static_cast<long long>(chunks), seconds[variants[2]] * 1e3, seconds[variants[1]] * 1e3,
        seconds[variants[0]] * 1e3, (seconds[variants[2]] / seconds[variants[0]] - 1) * 100,
        std::chrono::duration<double>(delay).count() * 1e3, shown * 1e3, left * 1e3,
        (1 - left / shown) * 100, (1 - kShownDelays / (3.0 * static_cast<double>(chunks))) * 100);
  }
}

}  // namespace
}  // namespace wideload

int main(int argc, char** argv) {
  int rounds = 9;
  CLI::App app("what overlapping chunks hide of a slow medium");
  app.add_option("--rounds", rounds, "samples of each variant")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  wideload::Run(rounds);
  return 0;
}
