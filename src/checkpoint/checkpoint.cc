#include "checkpoint/checkpoint.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/log.h"
#include "checkpoint/shard_index.h"

namespace wideload::checkpoint {
namespace {

constexpr uint64_t kMaxIndexBytes = uint64_t{256} << 20;

enum class Format { kSafetensors, kGguf, kPickle, kOther };

Format FormatOf(const std::string& name) {
  if (name.ends_with(".safetensors")) return Format::kSafetensors;
  if (name.ends_with(".gguf")) return Format::kGguf;
  if (name.ends_with(".bin") || name.ends_with(".pt") || name.ends_with(".pth") ||
      name.ends_with(".ckpt") || name.ends_with(".bin.index.json"))
    return Format::kPickle;
  return Format::kOther;
}

[[noreturn]] void RefuseFormat(const std::string& path, Format format) {
  if (format == Format::kGguf)
    Throw(ErrorKind::kUnsupported,
          "{}: is a GGUF file; give the model's original Hugging Face folder, with config.json and "
          "safetensors",
          path);
  Throw(ErrorKind::kUnsupported,
        "{}: is a pickle (PyTorch) file, which may carry code; give a folder converted to "
        "safetensors, for example by save_pretrained(safe_serialization=True)",
        path);
}

void RefuseFile(const std::string& path) {
  const Format format = FormatOf(path);
  if (format == Format::kGguf || format == Format::kPickle) RefuseFormat(path, format);
  const SafetensorsFile file(path);  // says by itself what is wrong with other files
  Throw(ErrorKind::kInvalid, "{}: is one safetensors file; give the folder that holds it", path);
}

[[noreturn]] void RefuseNoWeights(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  for (const Format format : {Format::kGguf, Format::kPickle})
    for (const std::string& name : names)
      if (FormatOf(name) == format) RefuseFormat(folder + "/" + name, format);
  std::string others;
  for (const std::string& name : names)
    if (FormatOf(name) == Format::kSafetensors) others += (others.empty() ? "" : ", ") + name;
  if (!others.empty())
    Throw(ErrorKind::kNotFound,
          "{}: holds {}, but neither model.safetensors nor model.safetensors.index.json", folder,
          others);
  Throw(ErrorKind::kNotFound,
        "{}: holds no weights; expected model.safetensors, or shards with "
        "model.safetensors.index.json",
        folder);
}

}  // namespace

bool HasWeights(const std::string& folder) {
  const std::string single = folder + "/model.safetensors";
  return FileExists(single) || FileExists(single + ".index.json");
}

Checkpoint::Checkpoint(const std::string& folder) : folder_(folder) {
  if (!IsDirectory(folder)) {
    if (!FileExists(folder)) Throw(ErrorKind::kNotFound, "{}: no such folder", folder);
    RefuseFile(folder);
  }
  const std::string single = folder + "/model.safetensors";
  const std::string index = single + ".index.json";
  if (FileExists(single)) {
    if (FileExists(index)) LogWarn("{}: not used, because model.safetensors is there too", index);
    OpenSingle(single);
  } else if (FileExists(index)) {
    OpenShards(index);
  } else {
    RefuseNoWeights(folder);
  }
}

void Checkpoint::OpenSingle(const std::string& path) {
  files_.emplace_back(path);
  for (const auto& [name, view] : files_.back().tensors()) tensors_.try_emplace(name, view, 0);
  if (tensors_.empty()) Throw(ErrorKind::kCorrupt, "{}: holds no tensor", path);
}

void Checkpoint::OpenShards(const std::string& index_path) {
  const ShardIndex index = ParseShardIndex(ReadFile(index_path, kMaxIndexBytes), index_path);
  for (const std::string& shard : index.Shards()) {
    if (!FileExists(folder_ + "/" + shard))
      Throw(ErrorKind::kNotFound, "{}: names the shard {}, which is missing in {}", index_path,
            shard, folder_);
    AddShard(shard, index.shard_of);
  }
  // Names without a tensor do no harm unless the model asks for one.
  const auto is_stray = [&](const auto& entry) { return !Has(entry.first); };
  const auto stray = std::ranges::find_if(index.shard_of, is_stray);
  if (stray != index.shard_of.end())
    LogWarn("{}: names {} tensors that their shards do not hold, the first is {} in {}", index_path,
            std::ranges::count_if(index.shard_of, is_stray), stray->first, stray->second);
  if (index.total_bytes && *index.total_bytes != TotalBytes())
    LogWarn("{}: metadata.total_size is {}; the tensors have {} bytes", index_path,
            *index.total_bytes, TotalBytes());
}

void Checkpoint::AddShard(const std::string& shard,
                          const std::map<std::string, std::string>& shard_of) {
  const std::string path = folder_ + "/" + shard;
  files_.emplace_back(path);
  int64_t num_unnamed = 0;
  for (const auto& [name, view] : files_.back().tensors()) {
    const auto named = shard_of.find(name);
    if (named == shard_of.end()) {
      ++num_unnamed;
      continue;
    }
    if (named->second != shard)
      Throw(ErrorKind::kCorrupt,
            "{}: holds the tensor {}; model.safetensors.index.json says that {} holds it", path,
            name, named->second);
    tensors_.try_emplace(name, view, files_.size() - 1);
  }
  if (num_unnamed > 0)
    LogWarn("{}: holds {} tensors that model.safetensors.index.json does not name; not used", path,
            num_unnamed);
}

const Checkpoint::Entry& Checkpoint::Find(std::string_view name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end())
    Throw(ErrorKind::kNotFound, "{}: none of its {} safetensors files holds the tensor {}{}",
          folder_, files_.size(), name, Hint(name));
  return it->second;
}

// What the folder may hold instead of the tensor.
std::string Checkpoint::Hint(std::string_view name) const {
  constexpr std::string_view kModel = "model.";
  constexpr std::string_view kExperts = ".experts.";
  constexpr std::string_view kLanguage = "language_model.";  // at times below "model."
  for (const auto& [other, entry] : tensors_) {
    const bool has_more =
        (other.size() > name.size() && other.ends_with(fmt::format(".{}", name))) ||
        (name.starts_with(kModel) &&
         other.ends_with(fmt::format("{}{}", kLanguage, name.substr(kModel.size()))));
    const bool has_less = name.size() > other.size() && name.starts_with(kModel) &&
                          name.ends_with(other) && name.size() == other.size() + kModel.size();
    if (has_more || has_less)
      return fmt::format("; it holds {}, as checkpoints of {} do", other,
                         has_more ? "several modalities" : "the bare model");
  }
  const size_t experts = name.find(kExperts);
  if (experts == std::string_view::npos) return "";
  const std::string_view prefix = name.substr(0, experts + kExperts.size());
  const auto other = tensors_.lower_bound(prefix);
  if (other == tensors_.end() || !other->first.starts_with(prefix)) return "";
  return fmt::format("; of these experts it holds {}", other->first);
}

TensorView Checkpoint::Get(std::string_view name) const {
  const Entry& entry = Find(name);
  entry.used.store(true, std::memory_order_relaxed);
  return *entry.view;
}

TensorView Checkpoint::Get(std::string_view name, const Shape& shape) const {
  const TensorView view = Get(name);
  if (view.shape() != shape)
    Throw(ErrorKind::kInvalid, "{}: tensor {} has the shape {}; it must be {}", FileOf(name), name,
          view.shape().ToString(), shape.ToString());
  return view;
}

TensorView Checkpoint::Get(std::string_view name, DType dtype, const Shape& shape) const {
  const TensorView view = Get(name, shape);
  if (view.dtype() != dtype)
    Throw(ErrorKind::kInvalid, "{}: tensor {} has the dtype {}; it must be {}", FileOf(name), name,
          DTypeName(view.dtype()), DTypeName(dtype));
  return view;
}

const TensorView& Checkpoint::Peek(std::string_view name) const { return *Find(name).view; }

const std::string& Checkpoint::FileOf(std::string_view name) const {
  return files_[Find(name).file].path();
}

std::vector<std::string_view> Checkpoint::Names() const {
  std::vector<std::string_view> names;
  for (const auto& [name, entry] : tensors_) names.push_back(name);
  return names;
}

std::vector<std::string_view> Checkpoint::UnusedTensors() const {
  std::vector<std::string_view> names;
  for (const auto& [name, entry] : tensors_)
    if (!entry.used.load(std::memory_order_relaxed)) names.push_back(name);
  return names;
}

uint64_t Checkpoint::TotalBytes() const {
  uint64_t total = 0;
  for (const auto& [name, entry] : tensors_)
    total += static_cast<uint64_t>(entry.view->num_bytes());
  return total;
}

void Checkpoint::GiveBackPages() const {
  for (const SafetensorsFile& file : files_) file.GiveBackPages();
}

}  // namespace wideload::checkpoint
