#include "serve_control.h"

#include <filesystem>

#include "base/error.h"
#include "runtime/start/outputs.h"

namespace wideload::apps {

std::vector<serve::ControlRoute> ServeControl::Routes() {
  return {{"/start_expert_distribution_record",
           [this](runtime::Engine& engine) { return StartRecording(engine); }},
          {"/stop_expert_distribution_record",
           [this](runtime::Engine& engine) { return StopRecording(engine); }},
          {"/dump_expert_distribution_record", [this](runtime::Engine&) { return Dump(); }},
          {"/rebalance", Rebalance},
          {"/drain", [this](runtime::Engine&) { return Drain(); }}};
}

void ServeControl::End(runtime::Engine& engine) {
  if (std::exchange(is_recording_, false)) engine.SetRecorder(nullptr);
}

std::string ServeControl::StartRecording(runtime::Engine& engine) {
  if (session_.model->spec().moe.layers.empty())
    Throw(ErrorKind::kUnsupported, "the model has no experts whose load could be recorded");
  if (session_.recorder)
    Throw(ErrorKind::kUnsupported,
          "--expert-statistic-path records since the start; it is written at the end");
  if (is_recording_) Throw(ErrorKind::kInvalid, "a recording is under way");
  recorder_ = runtime::MakeRecorder(session_, {.start = engine.next_iteration()});
  engine.SetRecorder(recorder_.get());
  is_recording_ = true;
  return "recording from the next iteration on";
}

std::string ServeControl::StopRecording(runtime::Engine& engine) {
  if (!is_recording_) Throw(ErrorKind::kInvalid, "no recording is under way");
  End(engine);
  return fmt::format("{} iterations are recorded", recorder_->Statistics().num_iterations);
}

std::string ServeControl::Dump() {
  if (record_path_.empty())
    Throw(ErrorKind::kUnsupported, "there is no place for it: serve has no --record-path");
  if (!recorder_) Throw(ErrorKind::kInvalid, "nothing has been recorded");
  std::filesystem::path folder;
  for (int64_t number = 0; folder.empty() || std::filesystem::exists(folder); ++number)
    folder = std::filesystem::path(record_path_) / std::to_string(number);
  recorder_->Write(folder.string(), statistics::ExistingFolder::kRefuse);
  return fmt::format("{} iterations are in {}", recorder_->Statistics().num_iterations,
                     folder.string());
}

std::string ServeControl::Rebalance(runtime::Engine& engine) {
  if (engine.balancer() == nullptr)
    Throw(ErrorKind::kUnsupported,
          "there is no online balancer: --rebalance is off, the model has no experts, or there is "
          "one rank");
  engine.balancer()->PlanNow();
  return "the next iteration is planned for with every layer looked at";
}

std::string ServeControl::Drain() {
  is_drain_asked_ = true;
  return "no new requests are taken; the server ends when those under way are answered";
}

}  // namespace wideload::apps
