#include "formats/array_file.h"

#include <map>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "formats/npy.h"
#include "tensor/safetensors.h"

namespace wideload::formats {
namespace {

struct ArrayPath {
  std::string file;
  std::string array;  // empty: not named
};

std::optional<ArrayPath> SplitPath(const std::string& path) {
  if (path.ends_with(".npy")) return ArrayPath{path, ""};
  for (const std::string ending : {".npz", ".safetensors"}) {
    if (path.ends_with(ending)) return ArrayPath{path, ""};
    const size_t at = path.rfind(ending + ":");
    if (at != std::string::npos && at > 0)
      return ArrayPath{path.substr(0, at + ending.size()), path.substr(at + ending.size() + 1)};
  }
  return std::nullopt;
}

// The named one of `arrays`, or the only one. "a, b, c and 5 more" in messages.
template <class Map>
typename Map::const_iterator Choose(const Map& arrays, const ArrayPath& path) {
  constexpr size_t kShown = 8;
  std::string names;
  size_t shown = 0;
  for (const auto& [name, array] : arrays)
    if (shown++ < kShown) names += (names.empty() ? "" : ", ") + name;
  if (arrays.size() > kShown) names += fmt::format(" and {} more", arrays.size() - kShown);
  if (names.empty()) names = "none";
  if (path.array.empty() && arrays.size() == 1) return arrays.begin();
  if (path.array.empty())
    Throw(ErrorKind::kInvalid, "{}: holds {} arrays; name one as {}:ARRAY of {}", path.file,
          arrays.size(), path.file, names);
  const auto it = arrays.find(path.array);
  if (it == arrays.end())
    Throw(ErrorKind::kNotFound, "{}: has no tensor \"{}\"; it has {}", path.file, path.array,
          names);
  return it;
}

}  // namespace

bool IsArrayFile(const std::string& path) { return SplitPath(path).has_value(); }

std::string FileOfArrayPath(const std::string& path) {
  const std::optional<ArrayPath> split = SplitPath(path);
  return split ? split->file : path;
}

NumberArray ReadArrayFile(const std::string& path) {
  const std::optional<ArrayPath> split = SplitPath(path);
  WIDELOAD_CHECK(split.has_value(), "{} is no file of arrays", path);
  if (split->file.ends_with(".npy")) return ReadNpy(path);
  if (split->file.ends_with(".npz")) {
    const MappedFile file(split->file);
    const std::map<std::string, NumberArray> arrays = ParseNpz(file.bytes(), split->file);
    return Choose(arrays, *split)->second;
  }
  const SafetensorsFile file(split->file);
  const auto chosen = Choose(file.tensors(), *split);
  return ArrayOfTensor(chosen->second, fmt::format("{}: tensor {}", split->file, chosen->first));
}

}  // namespace wideload::formats
