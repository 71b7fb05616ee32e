#include "runtime/start/outputs.h"

#include <cstdlib>
#include <set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "trace/trace_file.h"

namespace wideload::runtime {
namespace {

void PrepareStatistics(const config::EngineFlags& flags, Session& session) {
  session.record = statistics::ChooseRecordSettings(
      {.flag_path = flags.statistic_path,
       .flag_range = flags.statistic_iter_range,
       .environment_path = std::getenv("EXPERT_STATISTIC_PATH"),
       .environment_range = std::getenv("EXPERT_STATISTIC_ITER_RANGE")});
  if (!session.record) return;
  if (session.spec.moe.layers.empty())
    Throw(ErrorKind::kInvalid, "expert statistics are asked for ({}); {} has no experts",
          session.record->path, session.config.architecture);
  if (flags.replace_statistics) session.existing = statistics::ExistingFolder::kReplace;
  statistics::CheckStatisticsFolder(session.record->path, session.existing);
}

void PrepareTrace(const config::EngineFlags& flags, Session& session) {
  session.trace_path = flags.trace;
  if (flags.trace.empty()) return;
  if (flags.trace == "-")
    Throw(ErrorKind::kInvalid,
          "--trace is -; standard output has what the command prints: give a file");
  CheckWritable(flags.trace);
}

void WriteStatistics(Session& session) {
  if (!session.recorder || !session.record) return;
  session.recorder->Write(session.record->path, session.existing);
  if (session.recorder->num_dropped() > 0)
    LogWarn("{}: {} iterations did not fit into memory and are missing", session.record->path,
            session.recorder->num_dropped());
  LogInfo("{}: expert statistics of {} iterations", session.record->path,
          session.recorder->Statistics().num_iterations);
}

void WriteTrace(Session& session) {
  if (session.trace_path.empty()) return;
  const std::vector<trace::TrackData> tracks = session.engine->ReadTrace();
  WholeFileWriter writer(session.trace_path);
  trace::WriteTraceJson(tracks, [&](std::string_view text) { writer.Append(text); });
  writer.Commit();
  size_t num_spans = 0;
  int64_t num_dropped = 0;
  std::set<int32_t> ranks;
  for (const trace::TrackData& track : tracks) {
    if (track.rank >= 0) ranks.insert(track.rank);
    num_spans += track.events.size();
    num_dropped += track.num_dropped;
  }
  LogInfo("{}: trace of {} spans on {} tracks, for ui.perfetto.dev", session.trace_path, num_spans,
          tracks.size());
  if (std::ssize(ranks) < session.engine->options().num_ranks())
    LogWarn("{}: ranks that ended before are missing: it has {} of {}", session.trace_path,
            ranks.size(), session.engine->options().num_ranks());
  if (num_dropped > 0)
    LogWarn("{}: {} older spans are missing: a track keeps {}", session.trace_path, num_dropped,
            session.trace->track_events());
}

}  // namespace

void PrepareOutputs(const config::EngineFlags& flags, Session& session) {
  PrepareStatistics(flags, session);
  PrepareTrace(flags, session);
}

std::unique_ptr<statistics::Recorder> MakeRecorder(const Session& session,
                                                   const statistics::IterationRange& range) {
  return std::make_unique<statistics::Recorder>(
      statistics::RecorderOptions{.num_ranks = session.engine->options().num_ranks(),
                                  .num_stages = session.engine->options().layout.pp,
                                  .layers = session.model->spec().moe.layers,
                                  .num_experts = static_cast<int32_t>(session.config.num_experts),
                                  .experts_per_token = static_cast<int32_t>(session.config.top_k),
                                  .range = range});
}

void StartRecording(Session& session) {
  if (!session.record) return;
  session.recorder = MakeRecorder(session, session.record->range);
  session.engine->SetRecorder(session.recorder.get());
}

void StartTrace(bool is_tracing, Session& session, EngineOptions& options) {
  if (!is_tracing) return;
  session.trace = std::make_unique<trace::Trace>();
  options.trace = session.trace.get();
}

void WriteOutputs(Session& session) {
  WriteStatistics(session);
  WriteTrace(session);
}

}  // namespace wideload::runtime
