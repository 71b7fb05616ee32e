#include "session.h"

#include <cstdio>
#include <cstdlib>
#include <optional>

#include "base/error.h"
#include "base/temporary.h"
#include "comm/mpi/launch.h"
#include "embedded_model.h"
#include "interrupt.h"
#include "runtime/start/outputs.h"
#include "runtime/start/run_devices.h"
#include "version.h"

namespace wideload::apps {

// Rank 0's part of a run of processes.
int LeadRanks(runtime::ProcessWorld& world, const std::function<void()>& command) {
  int code = 0;
  try {
    command();
    code = FinishOutput(InterruptExitCode());
  } catch (const std::exception& failure) {
    // Told at once, or told by who speaks for all parts.
    const bool is_told = world.has_failed() || (world.has_agreed_to_end() && !world.leads_all());
    code = is_told ? FailureCode(failure) : ReportFailure(failure);
  }
  world.End(code);
  return code;
}

// That of the others: serve sessions until rank 0 ends the run.
int ServeRanks(runtime::ProcessWorld& world, const std::function<void()>& serve_session) {
  try {
    while (true) {
      if (const std::optional<int> code = world.NextPhase()) return *code;
      serve_session();
    }
  } catch (const std::exception& failure) {
    // What all ranks have thrown rank 0 tells of.
    const auto* const error = dynamic_cast<const Error*>(&failure);
    if (world.has_agreed_to_end() && error != nullptr) return ExitCode(error->kind());
    world.Fail(FailureText(failure));
    return FailureCode(failure);
  }
}

void RefuseSlurmWithoutPmi() {
  if (comm::DetectLaunch(std::getenv) == comm::Launch::kSlurmWithoutPmi)
    Throw(ErrorKind::kUnsupported,
          "srun started this process as one of several that MPI cannot bring together; use srun "
          "--mpi=pmix (srun --mpi=list shows what there is)");
}

namespace {

void EndIfRankIsStuck(const Session& session, const std::exception& failure) {
  if (session.engine->stuck_ranks().empty()) return;
  ReportFailure(failure);
  std::fflush(nullptr);
  RemoveTemporaries();
  std::_Exit(ExitCode(ErrorKind::kRunFailed));
}

}  // namespace

Session StartSession(runtime::ProcessWorld* world, const EngineFlags& flags,
                     const CheckBeforeLoad& check) {
  return runtime::StartSession(world, flags, StartSettingsOf(world, flags, check));
}

runtime::StartSettings StartSettingsOf(runtime::ProcessWorld* world, const EngineFlags& flags,
                                       const CheckBeforeLoad& check) {
  return {
      .find_folder = [&] { return flags.model.empty() ? EmbeddedModelFolder() : flags.model; },
      .version = kVersion,
      .check = check,
      .pending_signal = InterruptSignal,
      .on_signal = NoteInterrupt,
      .on_failure = [world](const std::exception& failure) { world->Fail(FailureText(failure)); }};
}

void RefuseSeveralProcesses() {
  if (comm::DetectLaunch(std::getenv) == comm::Launch::kAlone) return;
  Throw(ErrorKind::kUnsupported,
        "this process was started by mpirun or srun as one of several; this command runs its ranks "
        "as threads of one process: start it without them");
}

void CheckDevice(const EngineFlags& flags, bool can_use_gpus) {
  const auto check = [&] {
    if (!can_use_gpus && !runtime::ParseDevice(flags.device).is_cpu)
      Throw(ErrorKind::kUnsupported,
            "--device is {}: this command computes with the processor; cpu is allowed",
            flags.device);
    runtime::CheckRunDevice(flags.device);
  };
  if (comm::DetectLaunch(std::getenv) == comm::Launch::kAlone) return check();
  ReadOrRefuse(check);  // once for all processes
}

void RunOnRanks(const EngineFlags& flags,
                const std::function<void(runtime::ProcessWorld*)>& command) {
  if (comm::DetectLaunch(std::getenv) == comm::Launch::kAlone) return command(nullptr);
  RefuseSlurmWithoutPmi();
  int code = 0;
  {
    runtime::ProcessWorld world;
    if (!world.is_leader()) {
      SetLogPrefix(fmt::format("[rank {}] ", world.rank()));
      CatchInterrupts();
    }
    code = world.is_leader()
               ? LeadRanks(world, [&] { command(world.size() > 1 ? &world : nullptr); })
               : ServeRanks(world, [&] {
                   const Session session = StartSession(&world, flags);
                   session.server->Serve();
                 });
  }
  if (code != 0) EndSilently(code);
  ForgetInterrupt();  // rank 0 has made of it what it asks for
}

void RunUnrecorded(Session& session, const std::function<void()>& work) {
  try {
    work();
  } catch (const std::exception& failure) {
    if (const int64_t lost = session.engine->num_unfinished(); lost > 0)
      LogWarn("{} requests had not ended; what they had generated is lost", lost);
    EndIfRankIsStuck(session, failure);
    throw;
  }
}

void RunRecorded(Session& session, const std::function<void()>& work) {
  RunUnrecorded(session, [&] {
    try {
      work();
    } catch (const std::exception&) {
      try {
        runtime::WriteOutputs(session);
      } catch (const Error& e) {
        LogWarn("{}", e.what());
      }
      throw;
    }
  });
  runtime::WriteOutputs(session);
}

void RefuseInvalid(const runtime::Request& request, const Session& session,
                   const runtime::EngineOptions& options, std::string_view place) {
  const std::string reason = RefusalReason(request, options, session.config.vocab_size);
  if (!reason.empty()) Throw(ErrorKind::kInvalid, "{}: {}", place, reason);
}

}  // namespace wideload::apps
