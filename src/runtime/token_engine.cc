#include "runtime/token_engine.h"

#include <utility>

#include "runtime/engine.h"

namespace wideload::runtime {
namespace {

class LocalEngine final : public TokenEngine {
 public:
  explicit LocalEngine(Engine& engine) : engine_(engine) {}

  RequestId Submit(Request request) override { return engine_.Submit(std::move(request)); }
  RequestId SubmitComputed(Request request, ComputedPrompt prompt) override {
    return engine_.SubmitComputed(std::move(request), std::move(prompt));
  }
  void Cancel(RequestId id) override { engine_.Cancel(id); }
  bool HasLease(RequestId id) const override { return engine_.HasLease(id); }
  void DropLeases() override { engine_.DropLeases(); }
  std::optional<CachedSequence> Kept(RequestId id) const override { return engine_.Kept(id); }
  std::span<const Event> Step(const std::function<void()>& meanwhile) override {
    return engine_.Step(meanwhile);
  }
  bool idle() const override { return engine_.idle(); }
  void SetLogitsSink(LogitsSink sink) override { engine_.SetLogitsSink(std::move(sink)); }
  std::span<const RequestId> admitted() const override { return engine_.scheduler().admitted(); }
  EngineFigures figures() const override { return FiguresOf(engine_); }
  Engine* local() override { return &engine_; }

 private:
  Engine& engine_;
};

}  // namespace

std::unique_ptr<TokenEngine> MakeLocalEngine(Engine& engine) {
  return std::make_unique<LocalEngine>(engine);
}

EngineFigures FiguresOf(const Engine& engine) {
  const Scheduler& scheduler = engine.scheduler();
  return {.num_waiting = scheduler.num_waiting(),
          .num_running = scheduler.num_running(),
          .num_iterations = engine.last_iteration().iteration + 1,
          .num_preemptions = scheduler.num_preemptions(),
          .num_held = scheduler.num_held(),
          .kv_usage = scheduler.kv_usage(),
          .prefixes = scheduler.prefix_figures(),
          .mean_imbalance = engine.exchange_figures().MeanImbalance(),
          .hand_over = engine.hand_over_figures()};
}

}  // namespace wideload::runtime
