// The start of an engine: from options and a folder to a model in memory and the ranks that run it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/shared_memory.h"
#include "checkpoint/generation_config.h"
#include "checkpoint/model_config.h"
#include "config/flags.h"
#include "model/loader.h"
#include "model/model.h"
#include "model/packed_file.h"
#include "model/weight_store.h"
#include "runtime/engine.h"
#include "runtime/processes/process_world.h"
#include "runtime/processes/rank_server.h"
#include "runtime/servers/block_service.h"
#include "runtime/start/memory_sums.h"
#include "runtime/start/run_devices.h"
#include "statistics/recorder.h"
#include "trace/trace.h"

namespace wideload::runtime {

// A model in memory and the engine that runs it, or, in a process that is a rank other than 0, what
// serves that engine. These go first.
struct Session {
  std::string folder;
  checkpoint::ModelConfig config;
  model::ModelSpec spec;
  std::string_view family;  // for people
  checkpoint::GenerationConfig generation;
  compute::KernelSet kernels = compute::KernelSet::kReference;
  std::vector<std::unique_ptr<device::Device>> devices;  // GPUs of the ranks; none: processors
  device::Memory device_weights;                         // there
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
  std::string trace_path;                      // of rank 0; empty: nothing is traced
  std::unique_ptr<trace::Trace> trace;         // of this process; null: nothing is traced
  SharedMemory cache;                          // of this rank, with StartSettings::kShared
  Buffer cache_block;                          // likewise, with kBlock
  std::unique_ptr<ProcessWorld::Links> links;  // of ranks that are processes
  std::unique_ptr<Engine> engine;              // null on ranks other than 0
  std::unique_ptr<RankServer> server;          // only there
  std::unique_ptr<BlockService> blocks;        // of this rank's cache; null: nobody asks for it
  int64_t context = 0;  // tokens that a request may have, as the flags or the model say
  double load_seconds = 0;
  ModelBytes bytes;
  std::vector<checkpoint::MemoryPart> memory;  // that the ranks of this host were planned to take
};

// A command's own checks: called once flags and config are read and before weights are, with the
// options the engine will have. model and engine of the session are still null. Returns the tokens
// of the longest request to come, prompt and generated, at most max_seq_len: the engine is made for
// no longer ones.
using CheckBeforeLoad = std::function<int64_t(const Session&, const EngineOptions&)>;

// What the program that starts an engine says beside the options.
struct StartSettings {
  // Gives the model's folder; may throw, which all ranks then do.
  std::function<std::string()> find_folder;
  std::string version;  // of the program: that of all ranks
  CheckBeforeLoad check = {};
  // Of ranks that are processes: as in RankLinks.
  std::function<int()> pending_signal = {};
  std::function<void(int)> on_signal = {};
  // Likewise: whether their KV caches are for ranks of other engines: in shared memory, as
  // CacheSegment of the world's job, or Session::cache_block.
  enum class CachePlace { kOwn, kShared, kBlock };
  CachePlace cache_place = CachePlace::kOwn;
  // Likewise: see RankLinks. It may be filled later, before the first prompt is fetched.
  ContextCaches* contexts = nullptr;
  // Likewise: called on all ranks when each has its memory and its links, before the engine begins;
  // what it throws, all throw.
  std::function<void(Session&, const EngineOptions&)> before_begin = {};
  // Likewise: told why the run ends.
  std::function<void(const std::exception&)> on_failure = {};
  // What --device means here, with its kernels.
  std::function<RunDevices(std::string_view)> open_devices = OpenRunDevices;
};

// Checks the options and the memory, loads the model with progress on stderr, starts the ranks, and
// says in one line what is active. With a world the ranks are its processes: collective, `check` of
// rank 0 only; null: threads. Errors: everything that is wrong with options, files or memory,
// before work; what `check` throws; a rank that differs from rank 0.
Session StartSession(ProcessWorld* world, const config::EngineFlags& flags,
                     const StartSettings& settings);

}  // namespace wideload::runtime
