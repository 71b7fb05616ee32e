// What generate, chat, logits, serve and bench share: running a model on its ranks.
#pragma once

#include <functional>
#include <string_view>

#include "base/log.h"
#include "command_line.h"
#include "config/config_file.h"
#include "engine_flags.h"
#include "option_flags.h"
#include "runtime/start/session.h"

namespace wideload::apps {

using runtime::CheckBeforeLoad;
using runtime::Session;

// Checks the flags and the memory, loads the model with progress on stderr, starts the ranks, and
// says in one line what is active. With a world the ranks are its processes: collective, `check` of
// rank 0 only; null: threads. Errors: everything that is wrong with flags, files or memory, before
// work; what `check` throws; a rank that differs from rank 0.
Session StartSession(runtime::ProcessWorld* world, const EngineFlags& flags,
                     const CheckBeforeLoad& check = {});
// What StartSession gives to runtime::StartSession.
runtime::StartSettings StartSettingsOf(runtime::ProcessWorld* world, const EngineFlags& flags,
                                       const CheckBeforeLoad& check);

// What RunOnRanks has a world's leader and its other ranks do; returns the exit code of all.
// `serve_session` serves one. Errors: none.
int LeadRanks(runtime::ProcessWorld& world, const std::function<void()>& command);
int ServeRanks(runtime::ProcessWorld& world, const std::function<void()>& serve_session);
// Errors: kUnsupported when srun has started several processes that MPI cannot bring together.
void RefuseSlurmWithoutPmi();

// Runs `command`, which uses the engine: with null when this process is alone; when mpirun or srun
// started several, with their world on rank 0, while the others serve its sessions. Then all end
// with the same exit code, by EndSilently if it is not 0. Errors: what `command`
// throws, when alone; kUnsupported when the processes cannot meet.
void RunOnRanks(const EngineFlags& flags,
                const std::function<void(runtime::ProcessWorld*)>& command);

// Errors: kInvalid or kUnsupported, in one line, for a --device that this command or this machine
// does not compute on; when mpirun or srun started several processes, as ReadOrRefuse.
void CheckDevice(const EngineFlags& flags, bool can_use_gpus);

// Command::Runs for a command that uses the engine: Flags has EngineFlags `engine` and Run(world),
// which RunOnRanks calls, and kCanUseGpus where --device may be a GPU.
template <class Flags>
Flags& RunsOnRanks(Command command) {
  return command.Runs<Flags>([](Flags& flags) {
    config::SamplingFlags* sampling = nullptr;
    if constexpr (requires { flags.sampling; }) sampling = &flags.sampling;
    const config::ConfigFile file = ApplyConfig(flags.engine, sampling);
    CheckDevice(
        flags.engine, requires { Flags::kCanUseGpus; });
    RunOnRanks(flags.engine, [&](runtime::ProcessWorld* world) {
      for (const std::string& note : config::Notes(file)) LogInfo("{}", note);
      flags.Run(world);
    });
  });
}

// Errors: kUnsupported when this process is one of several.
void RefuseSeveralProcesses();

// Errors: kInvalid "`place`: reason" when the engine would refuse the request.
void RefuseInvalid(const runtime::Request& request, const Session& session,
                   const runtime::EngineOptions& options, std::string_view place);

// Calls `work`, which runs the engine. When it ends with an exception and a rank's thread has not
// come back, the process ends here with main's message and exit code: nothing that this thread may
// still use can be taken down. RunRecorded also writes the recorded statistics and the trace, if
// they were asked for, at the end of `work` and before an exception is passed on.
void RunUnrecorded(Session& session, const std::function<void()>& work);
void RunRecorded(Session& session, const std::function<void()>& work);

}  // namespace wideload::apps
