#include "eplb_convert_kinds.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "formats/array_file.h"
#include "formats/read_recording.h"
#include "tensor/safetensors.h"

namespace wideload::apps {
namespace {

bool IsYaml(const std::string& path) { return path.ends_with(".yaml") || path.ends_with(".yml"); }

// Whether a safetensors file holds token-level routing and not arrays of loads.
bool HoldsRouting(const std::string& path) {
  if (!path.ends_with(".safetensors")) return false;
  const SafetensorsFile file(path);
  return std::any_of(file.tensors().begin(), file.tensors().end(), [](const auto& tensor) {
    return tensor.first == "expert_ids" || tensor.first.ends_with("_document_tokens");
  });
}

}  // namespace

Input InputOf(const std::string& path) {
  if (IsDirectory(path)) return formats::IsDumpFolder(path) ? Input::kEngineFile : Input::kFolder;
  const std::string file = formats::FileOfArrayPath(path);
  if (path != "-" && !FileExists(file))
    Throw(ErrorKind::kNotFound, "{}: no such file or folder", file);
  if (path == "-" || IsYaml(path)) return Input::kYaml;
  if (HoldsRouting(path)) return Input::kRouting;
  for (const char* ending : {".csv", ".json", ".jsonl", ".pt"})
    if (path.ends_with(ending)) return Input::kEngineFile;
  if (formats::IsArrayFile(path)) return Input::kEngineFile;
  Throw(ErrorKind::kInvalid,
        "{}: unknown input; allowed: a statistics folder or one of SGLang's dumps, FILE.yaml, "
        "FILE.csv, FILE.json, FILE.jsonl, FILE.pt, FILE.npy, FILE.npz:ARRAY, "
        "FILE.safetensors:TENSOR (loads), FILE.safetensors (routing)",
        path);
}

Output OutputOf(const std::string& path) {
  if (path == "-")
    Throw(ErrorKind::kInvalid,
          "output is -: standard output has no ending that tells a format; use a file name");
  static constexpr std::pair<std::string_view, Output> kEndings[] = {
      {".yaml", Output::kYaml},         {".yml", Output::kYaml},    {".csv", Output::kCsv},
      {".json", Output::kJson},         {".jsonl", Output::kJsonl}, {".npy", Output::kNpy},
      {".safetensors", Output::kTensor}};
  for (const auto& [ending, output] : kEndings)
    if (path.ends_with(ending)) return output;
  for (const char* ending : {".txt", ".tsv", ".npz", ".pt", ".pth", ".bin", ".html"})
    if (path.ends_with(ending) && !IsDirectory(path))
      Throw(ErrorKind::kInvalid,
            "{}: unknown output; allowed: FILE.yaml, FILE.csv, FILE.json, FILE.jsonl, FILE.npy, "
            "FILE.safetensors, a statistics folder",
            path);
  return Output::kFolder;
}

}  // namespace wideload::apps
