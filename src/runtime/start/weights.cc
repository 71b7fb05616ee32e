#include "runtime/start/weights.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "base/cpu_info.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/page_policy.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/load_progress.h"
#include "checkpoint/memory_plan.h"
#include "model/sharded_model.h"
#include "model/transformer.h"

namespace wideload::runtime {
namespace {

// How far a load is, on stderr.
class ShownProgress {
 public:
  ShownProgress(const char* what, const checkpoint::Checkpoint& weights)
      : shown_(what, weights.TotalBytes()) {}
  model::Progress OfLoad() {
    return [this](int64_t done, int64_t) {
      shown_.Add(static_cast<uint64_t>(done - std::exchange(reported_, done)));
    };
  }
  void Finish() { shown_.Finish(); }

 private:
  checkpoint::LoadProgress shown_;
  int64_t reported_ = 0;
};

// What of a model's memory is made elsewhere, and by whom it is read; nothing for one of its own.
struct SharedPlaces {
  Arena* arena = nullptr;            // of all but the experts, for a rank that is a process
  std::span<std::byte> block = {};   // of all that has no place below, for ranks that are threads
  device::Stream* upload = nullptr;  // the block is memory of its device
  const model::WeightStore* store = nullptr;  // of the experts
  const model::PackedFile* file = nullptr;    // of the experts, packed before
  bool is_first = true;                       // of the ranks here: reads what is in the arena
  int num_threads = NumAllowedCpus();
};

// Reads the weights, or its part of them, with progress.
void LoadModel(const config::EngineFlags& flags, const SharedPlaces& places, Session& session) {
  ThreadPool pool("load", places.num_threads);
  checkpoint::Checkpoint weights(session.folder);
  if (flags.check_weights && places.is_first) checkpoint::CheckWeights(weights, {}, pool);
  model::LoadOptions options{
      .kernels = session.kernels,
      .pool = &pool,
      .mode = places.is_first ? model::LoadMode::kRead : model::LoadMode::kAttach,
      .arena = places.arena,
      .upload = places.upload,
      .shards = session.shards,
      .expert_parts = session.expert_parts,
      .layers = session.layers};
  if (places.store != nullptr)
    options.place_expert = [&](int32_t moe_index, int32_t block, int64_t) {
      return model::PlacedExpert{.storage = Buffer::Over(places.store->BytesOf(moe_index, block)),
                                 .is_read = places.store->IsOwn(block)};
    };
  if (places.file != nullptr)
    options.place_expert = [&](int32_t moe_index, int32_t block, int64_t) {
      return model::PlacedExpert{.storage = places.file->BytesOf(moe_index, block),
                                 .is_read = false};
    };
  std::optional<ShownProgress> progress;
  if (places.is_first) options.progress = progress.emplace("loading weights", weights).OfLoad();
  if (places.arena == nullptr) {
    session.model = model::LoadForThreads(session.spec, weights, options, session.shards.own.size,
                                          places.block);
  } else {
    model::WeightLoader loader(weights, options);
    session.model = model::LoadTransformer(session.spec, loader);
  }
  if (!progress) return;
  progress->Finish();
  if (session.layers && session.layers->size() < session.spec.num_layers()) return;
  for (const std::string& line : model::DescribeUnused(session.spec, weights.UnusedTensors()))
    LogInfo("{}: {}", session.folder, line);
}

// Options of memory mean nothing to a file, and a file nothing to a model without experts.
void RefuseUnlike(const config::EngineFlags& flags, const Session& session) {
  if (flags.weight_file.empty()) return;
  if (session.spec.moe.layers.empty())
    Throw(ErrorKind::kInvalid, "--weight-file is {}; {} has no experts", flags.weight_file,
          session.config.architecture);
  const auto refuse = [&](bool is_given, std::string_view option) {
    if (is_given)
      Throw(ErrorKind::kInvalid,
            "{} is for experts in memory; with --weight-file {} they are in a file: give one of "
            "the two",
            option, flags.weight_file);
  };
  refuse(!flags.weight_store.empty(), "--weight-store");
  refuse(flags.weight_huge_pages, "--weight-huge-pages");
  refuse(flags.weight_numa != "off", "--weight-numa");
}

// What a file of experts must have been made from.
model::PackedKey KeyOf(const Session& session) {
  return {.kernels = std::string(KernelSetName(session.kernels)),
          .checkpoint = Fingerprint(TensorsOf(session.folder)),
          .layers = session.spec.moe.layers,
          .expert_bytes = session.bytes.experts};
}

// Writes the file of experts if there is none, of weights that are right where that is asked for.
void PackExperts(const config::EngineFlags& flags, const Session& session) {
  if (FileExists(flags.weight_file)) return;
  model::PackedFileWriter writer(flags.weight_file, KeyOf(session));
  ThreadPool pool("pack", NumAllowedCpus());
  checkpoint::Checkpoint weights(session.folder);
  if (flags.check_weights) checkpoint::CheckWeights(weights, {}, pool);
  ShownProgress progress("packing experts", weights);
  model::WeightLoader loader(weights, {.kernels = session.kernels,
                                       .pool = &pool,
                                       .progress = progress.OfLoad(),
                                       .expert_parts = session.expert_parts,
                                       .place_expert = [&](int32_t moe_index, int32_t block,
                                                           int64_t) -> model::PlacedExpert {
                                         return {.storage = writer.Next(moe_index, block)};
                                       }});
  model::LoadTransformer(session.spec, loader);
  writer.Commit();
  progress.Finish();
}

void OpenExperts(const config::EngineFlags& flags, Session& session) {
  session.packed = std::make_unique<model::PackedFile>(flags.weight_file, KeyOf(session));
}

void LogNuma(const config::EngineFlags& flags, const NumaScope& numa) {
  if (numa.note().empty()) return;
  Log(numa.is_denied() ? LogLevel::kWarn : LogLevel::kInfo, "--weight-numa {}: {}",
      flags.weight_numa, numa.note());
}

void LogHugePages(const std::string& note) {
  if (!note.empty()) LogWarn("--weight-huge-pages: {}", note);
}

// What the experts' parts are called here. Ranks that only seem to be on several hosts share a
// folder.
std::string StoreName(const config::EngineFlags& flags, const ProcessWorld& world) {
  const char* const variable = std::getenv("TRTLLM_EPLB_SHM_NAME");
  const std::string base = !flags.weight_store.empty() ? flags.weight_store
                           : variable != nullptr       ? variable
                                                       : model::WeightStorePlace().base;
  const std::string of_part = world.part() > 0 ? fmt::format("{}_p{}", base, world.part()) : base;
  return world.host() == 0 ? of_part : fmt::format("{}_h{}", of_part, world.host());
}

}  // namespace

std::string TensorsOf(const std::string& folder) {
  constexpr size_t kMaxSamples = 1024;  // of tensors, at equal distances
  constexpr int64_t kSampleBytes = 64;
  const checkpoint::Checkpoint weights(folder);
  const std::vector<std::string_view> names = weights.Names();
  const size_t step = (names.size() + kMaxSamples - 1) / kMaxSamples;
  std::string text;
  for (size_t i = 0; i < names.size(); ++i) {
    const TensorView& view = weights.Peek(names[i]);
    text += fmt::format("{} {} {}\n", names[i], DTypeName(view.dtype()), view.shape().ToString());
    if (i % step != 0) continue;
    const int64_t count = std::min(kSampleBytes, view.num_bytes());
    text.append(static_cast<const char*>(view.raw()) + (view.num_bytes() - count) / 2,
                static_cast<size_t>(count));
  }
  return text;
}

ModelBytes MeasureWeights(checkpoint::Checkpoint& weights, const model::ModelSpec& spec,
                          model::LoadOptions options) {
  ModelBytes bytes;
  bytes.experts.resize(spec.moe.layers.size());
  options.mode = model::LoadMode::kMeasure;
  options.place_expert = [&](int32_t moe_index, int32_t, int64_t num_bytes) {
    bytes.experts[static_cast<size_t>(moe_index)].push_back(num_bytes);
    bytes.weights += Arena::PieceBytes(num_bytes);
    return model::PlacedExpert{};
  };
  model::WeightLoader loader(weights, options);
  model::LoadTransformer(spec, loader);
  bytes.all_but_experts = loader.stored_bytes();
  bytes.weights += bytes.all_but_experts;
  bytes.expert = loader.expert_bytes();
  return bytes;
}

ModelBytes MeasureModel(const config::EngineFlags& flags, const Session& session) {
  RefuseUnlike(flags, session);
  checkpoint::Checkpoint weights(session.folder);
  model::LoadOptions options{.kernels = session.kernels,
                             .shards = session.shards,
                             .expert_parts = session.expert_parts,
                             .layers = session.layers};
  ModelBytes bytes = MeasureWeights(weights, session.spec, options);
  if (flags.weight_file.empty()) return bytes;
  bytes.weights = bytes.all_but_experts;
  if (!session.layers) return bytes;
  options.layers.reset();  // the file has all
  bytes.experts = MeasureWeights(weights, session.spec, options).experts;
  return bytes;
}

void CheckSharedMemoryOf(const ProcessWorld& world, const EngineOptions& options,
                         const Session& session, bool shares_caches) {
  if (world.local_rank() != 0) return;
  const auto exchange_bytes = static_cast<int64_t>(ExchangeBytes(session.spec, options));
  std::vector<SharedMemoryPart> parts = {
      {"weights", session.bytes.weights},
      {fmt::format("exchange and messages of {} ranks", world.local_size()),
       world.LinkBytes(exchange_bytes, options.layout)}};
  if (shares_caches)
    parts.push_back(
        {fmt::format("KV caches of {} ranks", world.local_size()),
         world.local_size() * CacheShapeOf(session.spec, options, world.rank()).num_bytes()});
  CheckSharedMemory(parts);
}

void LoadOnThreads(const config::EngineFlags& flags, Session& session) {
  if (!session.devices.empty()) {
    device::Device& device = *session.devices.front();
    session.device_weights = device.Allocate(session.bytes.weights);
    const std::unique_ptr<device::Stream> upload = device.MakeStream();
    return LoadModel(flags, {.block = session.device_weights.bytes(), .upload = upload.get()},
                     session);
  }
  const NumaScope numa(ParseNumaPolicy(flags.weight_numa));
  LogNuma(flags, numa);
  if (!flags.weight_file.empty()) {
    PackExperts(flags, session);
    OpenExperts(flags, session);
    return LoadModel(flags, {.file = session.packed.get()}, session);
  }
  if (!flags.weight_huge_pages) return LoadModel(flags, {}, session);
  // All weights in one block, since most are smaller than a huge page.
  session.block = Buffer(session.bytes.weights);
  const std::span<std::byte> bytes(session.block.data(),
                                   static_cast<size_t>(session.block.num_bytes()));
  LoadModel(flags, {.block = bytes}, session);
  LogHugePages(UseHugePages(bytes, false));
}

void LoadOnProcesses(ProcessWorld& world, const config::EngineFlags& flags, Session& session) {
  const SegmentName name{.job = world.job(), .name = fmt::format("weights-{}", world.host())};
  const bool is_first = world.local_rank() == 0;
  const bool is_in_file = !flags.weight_file.empty();
  world.Together([&] {
    if (is_in_file && is_first) PackExperts(flags, session);
  });
  world.Together([&] {
    if (is_in_file) OpenExperts(flags, session);
  });
  const NumaScope numa(ParseNumaPolicy(flags.weight_numa));
  if (is_first) LogNuma(flags, numa);
  session.experts = std::make_unique<model::WeightStore>(
      model::WeightStorePlace{.base = StoreName(flags, world),
                              .job = world.job(),
                              .local_rank = world.local_rank(),
                              .num_local_ranks = world.local_size()},
      is_in_file ? std::vector<int32_t>() : session.spec.moe.layers,
      is_in_file ? std::vector<std::vector<int64_t>>() : session.bytes.experts);
  world.Together([&] {
    if (!is_first) return;
    session.experts->Create();
    session.weights = SharedMemory::Create(name, session.bytes.all_but_experts);
    // Alone on its host: nobody needs the names, and nobody would remove them.
    if (world.local_size() > 1) return;
    session.experts->Unlink();
    session.weights.Unlink();
  });
  world.Together([&] {
    if (!is_first) session.experts->Create();
  });
  world.Together([&] {
    session.experts->Attach();
    if (!is_first) session.weights = SharedMemory::Attach(name);
  });
  session.experts->Unlink();
  session.weights.Unlink();
  world.Together([&] {
    Arena arena(session.weights.bytes());
    LoadModel(flags,
              {.arena = &arena,
               .store = is_in_file ? nullptr : session.experts.get(),
               .file = session.packed.get(),
               .is_first = is_first,
               .num_threads = std::max(1, NumAllowedCpus() / world.local_size())},
              session);
  });
  if (!flags.weight_huge_pages) return;
  std::string note = UseHugePages(session.weights.bytes(), true);
  for (const std::span<std::byte> part : session.experts->Parts()) {
    const std::string of_part = UseHugePages(part, true);
    if (note.empty()) note = of_part;
  }
  if (is_first) LogHugePages(note);
}

}  // namespace wideload::runtime
