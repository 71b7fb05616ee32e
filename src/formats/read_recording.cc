#include "formats/read_recording.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "formats/array_file.h"
#include "formats/placement_file.h"
#include "formats/sglang_dump.h"
#include "formats/vllm_files.h"

namespace wideload::formats {
namespace {

constexpr std::string_view kStepsAxes = "steps,layers,experts";
constexpr std::string_view kRanksAxes = "layers,ranks,slots";

std::string NameOf(const std::string& path) {
  return std::filesystem::path(FileOfArrayPath(path)).filename().string();
}

// [layers, ranks, slots of a rank] -> [layers, slots]
void JoinRanks(NumberArray& array, const std::string& path, Recording& recording) {
  if (array.rank() != 3)
    Throw(ErrorKind::kInvalid, "{} is {}; {} needs three dimensions", path, ShapeText(array.shape),
          kRanksAxes);
  recording.ep_size = static_cast<int32_t>(std::min<int64_t>(array.shape[1], 1 << 20));
  array.shape = {array.shape[0], array.shape[1] * array.shape[2]};
}

Recording OfArray(const std::string& path, const std::optional<Axes>& axes) {
  NumberArray array = ReadArrayFile(path);
  Recording recording{.source = path};
  const bool is_ascend = NameOf(path).starts_with("moe_load") && path.ends_with(".npy");
  const Axes chosen = axes.value_or(is_ascend && array.rank() == 3 ? Axes::kLayersRanksSlots
                                                                   : Axes::kStepsLayersExperts);
  if (chosen == Axes::kLayersRanksSlots) {
    recording.format = "an array [layers, ranks, slots]";
    recording.engine = Engine::kVllmAscend;
    JoinRanks(array, path, recording);
    if (!axes)
      recording.notes.push_back(fmt::format(
          "read as {} for its name, as vLLM on Ascend writes it (--axes {} reads it otherwise)",
          kRanksAxes, kStepsAxes));
  } else {
    recording.format =
        array.rank() == 3 ? "an array [steps, layers, experts]" : "an array [layers, experts]";
    if (array.rank() == 3 && !axes)
      recording.notes.push_back(
          fmt::format("read as {} (--axes {} reads it otherwise)", kStepsAxes, kRanksAxes));
  }
  recording.loads = TableOfArray(array, path);
  return recording;
}

Recording OfDocuments(std::span<const NamedDocument> documents, const std::string& path) {
  const Document& first = documents[0].content;
  if (const NumberArray* array = first.AsArray())
    return {.source = path,
            .format = array->rank() == 3 ? "an array [steps, layers, experts]"
                                         : "an array [layers, experts]",
            .loads = TableOfArray(*array, path)};
  if (IsAscendMap(first))
    Throw(ErrorKind::kInvalid, "{}: is an expert_map, a placement; it holds no loads", path);
  if (first.Find("record_type") != nullptr)
    Throw(ErrorKind::kInvalid, "{}: holds a record of vLLM; its files are named .jsonl", path);
  return RecordingOfSglang(documents, path);
}

// Files of a folder that may be dumps, in the order of their names.
std::vector<std::string> DumpsIn(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().string();
    if (name.ends_with(".pt") || (name.ends_with(".json") && !name.ends_with("/meta_info.json")))
      names.push_back(name);
  }
  if (error) Throw(ErrorKind::kIo, "{}: cannot list: {}", folder, error.message());
  std::sort(names.begin(), names.end());
  return names;
}

NamedDocument ReadDocument(const std::string& path) {
  return {path, path.ends_with(".pt") ? ParseTorchDocument(MappedFile(path).bytes(), path)
                                      : ParseJsonDocument(ReadFile(path), path)};
}

Recording OfFolder(const std::string& path) {
  std::vector<NamedDocument> documents;
  for (const std::string& name : DumpsIn(path)) documents.push_back(ReadDocument(name));
  if (documents.empty())
    Throw(ErrorKind::kInvalid,
          "{}: is a folder without dumps of SGLang (.pt, .json); TensorRT-LLM's statistics are for "
          "--expert_statistic_path",
          path);
  return OfDocuments(documents, path);
}

Recording Read(const std::string& path, const ReadRecordingOptions& options) {
  if (options.axes && !IsArrayFile(path))
    Throw(ErrorKind::kInvalid, "--axes is for .npy, .npz and .safetensors; the loads are {}", path);
  if (IsDirectory(path)) return OfFolder(path);
  if (path.ends_with(".csv")) return ParseCsvRecording(ReadFile(path), path);
  if (path.ends_with(".jsonl")) {
    VllmFile file = ParseVllmJsonl(ReadFile(path), path);
    if (!file.recording)
      Throw(ErrorKind::kInvalid, "{}: is a mapping, a placement; it holds no loads", path);
    return *std::move(file.recording);
  }
  if (path.ends_with(".json") || path.ends_with(".pt")) {
    const NamedDocument document = ReadDocument(path);
    return OfDocuments({&document, 1}, path);
  }
  if (IsArrayFile(path)) return OfArray(path, options.axes);
  if (!FileExists(path)) Throw(ErrorKind::kNotFound, "{}: no such file", path);
  Throw(ErrorKind::kInvalid,
        "loads is \"{}\"; it must be FILE.csv, FILE.jsonl (vLLM), FILE.json or FILE.pt (SGLang), "
        "FILE.npy, FILE.npz:ARRAY or FILE.safetensors:TENSOR",
        path);
}

SlotExperts PlacementFor(const Recording& recording, const std::string& path) {
  std::vector<int32_t> layers;
  for (const auto& [layer, loads] : recording.loads.layers) layers.push_back(layer);
  return NumberedLike(ReadPlacementFile(path).config, layers).layers;
}

}  // namespace

Axes ParseAxes(const std::string& text, const std::string& flag) {
  if (text == kStepsAxes) return Axes::kStepsLayersExperts;
  if (text == kRanksAxes) return Axes::kLayersRanksSlots;
  Throw(ErrorKind::kInvalid, "{} is \"{}\"; allowed: {} and {}", flag, text, kStepsAxes,
        kRanksAxes);
}

bool IsDumpFolder(const std::string& folder) {
  return IsDirectory(folder) && !FileExists(folder + "/meta_info.json") && !DumpsIn(folder).empty();
}

Recording ReadRecording(const std::string& path, const ReadRecordingOptions& options) {
  Recording recording = Read(path, options);
  if (options.placement_path && recording.slot_expert.empty())
    TakeSlots(PlacementFor(recording, *options.placement_path), *options.placement_path, recording);
  else if (options.placement_path)
    recording.notes.push_back(
        fmt::format("{} is not needed: {} tells its placement", *options.placement_path, path));
  if (const int64_t dropped = DropEmptyBatches(recording); dropped > 0)
    recording.notes.push_back(fmt::format("{} batches without any load are left out, {} are left",
                                          dropped, recording.num_batches()));
  return recording;
}

}  // namespace wideload::formats
