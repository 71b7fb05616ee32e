// What generate, chat, logits and bench share: loading a model and running it on its ranks.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/shared_memory.h"
#include "checkpoint/generation_config.h"
#include "checkpoint/model_config.h"
#include "command_line.h"
#include "config/config_file.h"
#include "engine_flags.h"
#include "model/loader.h"
#include "model/model.h"
#include "model/packed_file.h"
#include "model/weight_store.h"
#include "option_flags.h"
#include "runtime/engine.h"
#include "runtime/processes/process_world.h"
#include "runtime/processes/rank_server.h"
#include "statistics/recorder.h"
#include "trace/trace.h"

namespace wideload::apps {

// A model in memory and the engine that runs it, or, in a process that is a rank other than 0, what
// serves that engine. These go first.
struct Session {
  std::string folder;
  checkpoint::ModelConfig config;
  model::ModelSpec spec;
  std::string_view family;  // for people
  checkpoint::GenerationConfig generation;
  compute::KernelSet kernels = compute::KernelSet::kReference;
  // Of a model that processes of this host share: all but the experts, and these.
  SharedMemory weights;
  std::unique_ptr<model::WeightStore> experts;
  Buffer block;                               // of all weights, where their pages are huge
  std::unique_ptr<model::PackedFile> packed;  // of experts in a file, else null
  model::TensorShards shards;       // of what ranks divide: the parts that lie on this host
  model::ExpertParts expert_parts;  // likewise, of experts; all of them where they are in a file
  std::optional<parallel::Shard> layers;  // of the stages on this host, likewise; none: all
  std::unique_ptr<model::Model> model;
  std::optional<statistics::RecordSettings> record;  // what the flags or the environment ask for
  statistics::ExistingFolder existing = statistics::ExistingFolder::kRefuse;
  std::unique_ptr<statistics::Recorder> recorder;
  std::string trace_path;                               // of rank 0; empty: nothing is traced
  std::unique_ptr<trace::Trace> trace;                  // of this process; null: nothing is traced
  std::unique_ptr<runtime::ProcessWorld::Links> links;  // of ranks that are processes
  std::unique_ptr<runtime::Engine> engine;              // null on ranks other than 0
  std::unique_ptr<runtime::RankServer> server;          // only there
  int64_t context = 0;  // tokens that a request may have, as the flags or the model say
  double load_seconds = 0;
  ModelBytes bytes;
  std::vector<checkpoint::MemoryPart> memory;  // that the ranks of this host were planned to take
};

// A command's own checks: called once flags and config are read and before weights are, with the
// options the engine will have. model and engine of the session are still null. Returns the tokens
// of the longest request to come, prompt and generated, at most max_seq_len: the engine is made for
// no longer ones.
using CheckBeforeLoad = std::function<int64_t(const Session&, const runtime::EngineOptions&)>;

// Checks the flags and the memory, loads the model with progress on stderr, starts the ranks, and
// says in one line what is active. With a world the ranks are its processes: collective, `check` of
// rank 0 only; null: threads. Errors: everything that is wrong with flags, files or memory, before
// work; what `check` throws; a rank that differs from rank 0.
Session StartSession(runtime::ProcessWorld* world, const EngineFlags& flags,
                     const CheckBeforeLoad& check = {});

// Runs `command`, which uses the engine: with null when this process is alone; when mpirun or srun
// started several, with their world on rank 0, while the others serve its sessions. Then all end
// with the same exit code, by EndSilently if it is not 0. Errors: what `command`
// throws, when alone; kUnsupported when the processes cannot meet.
void RunOnRanks(const EngineFlags& flags,
                const std::function<void(runtime::ProcessWorld*)>& command);

// Command::Runs for a command that uses the engine: Flags has EngineFlags `engine` and Run(world),
// which RunOnRanks calls.
template <class Flags>
Flags& RunsOnRanks(Command command) {
  return command.Runs<Flags>([](Flags& flags) {
    config::SamplingFlags* sampling = nullptr;
    if constexpr (requires { flags.sampling; }) sampling = &flags.sampling;
    const config::ConfigFile file = ApplyConfig(flags.engine, sampling);
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
