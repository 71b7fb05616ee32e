#include "tensor/safetensors.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>
#include <tuple>

#include "base/error.h"
#include "base/json.h"

namespace wideload {
namespace {

constexpr uint64_t kMaxHeaderBytes = uint64_t{100} << 20;  // the limit of the format's own library

// Called when the first 8 bytes are no possible header length: only then can the file be of another
// format, because the first bytes of a valid length may be any.
void RefuseOtherFormats(std::span<const std::byte> bytes, const std::string& path) {
  const std::string_view head(reinterpret_cast<const char*>(bytes.data()),
                              std::min<size_t>(bytes.size(), 8));
  if (head.starts_with("GGUF"))
    Throw(ErrorKind::kUnsupported,
          "{}: is a GGUF file; give the model's Hugging Face folder with safetensors", path);
  if (head.starts_with("PK\x03\x04") ||
      (head.size() >= 2 && head[0] == '\x80' && head[1] >= '\x02' && head[1] <= '\x05'))
    Throw(ErrorKind::kUnsupported,
          "{}: is a pickle (PyTorch .bin or .pt) file, which may carry code; convert it to "
          "safetensors",
          path);
  if (head.starts_with("version "))
    Throw(ErrorKind::kUnsupported,
          "{}: is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`", path);
}

// Product of the dimensions times the element size, or nothing when that of the dimensions other
// than 0 exceeds 2^62, so that no partial product overflows.
std::optional<uint64_t> CheckedBytes(std::span<const int64_t> dims, DType dtype) {
  constexpr uint64_t kLimit = uint64_t{1} << 62;
  auto bytes = static_cast<uint64_t>(DTypeBytes(dtype));
  bool is_empty = false;
  for (const int64_t dim : dims) {
    is_empty = is_empty || dim == 0;
    const auto factor = static_cast<uint64_t>(std::max<int64_t>(dim, 1));
    if (bytes > kLimit / factor) return std::nullopt;
    bytes *= factor;
  }
  return is_empty ? 0 : bytes;
}

std::vector<int64_t> ReadDims(const JsonFields& entry) {
  const Json& shape = entry.Required("shape");
  if (!shape.is_array() || shape.size() > Shape::kMaxRank)
    entry.Refuse("shape", fmt::format("an array of at most {} dimensions", Shape::kMaxRank));
  std::vector<int64_t> dims;
  for (const Json& dim : shape) {
    if (!dim.is_number_unsigned() || dim.get<uint64_t>() > (uint64_t{1} << 48))
      entry.Refuse("shape", "non-negative integers");
    dims.push_back(dim.get<int64_t>());
  }
  return dims;
}

std::pair<uint64_t, uint64_t> ReadOffsets(const JsonFields& entry, uint64_t data_bytes) {
  const Json& offsets = entry.Required("data_offsets");
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned())
    entry.Refuse("data_offsets", "two non-negative integers");
  const auto begin = offsets[0].get<uint64_t>();
  const auto end = offsets[1].get<uint64_t>();
  if (begin > end || end > data_bytes)
    Throw(ErrorKind::kCorrupt,
          "{} is [{}, {}]; it must be ascending and within the file's {} data bytes",
          entry.Where("data_offsets"), begin, end, data_bytes);
  return {begin, end};
}

// The tensors must cover the data without overlap or gap.
void CheckExtents(const std::map<std::string, TensorView>& tensors, std::span<const std::byte> data,
                  const std::string& path) {
  struct Extent {
    uint64_t begin;
    uint64_t end;
    std::string_view name;
  };
  std::vector<Extent> extents;
  extents.reserve(tensors.size());
  for (const auto& [name, view] : tensors) {
    const auto begin =
        static_cast<uint64_t>(static_cast<const std::byte*>(view.raw()) - data.data());
    extents.push_back({begin, begin + static_cast<uint64_t>(view.num_bytes()), name});
  }
  std::sort(extents.begin(), extents.end(), [](const Extent& a, const Extent& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  uint64_t covered = 0;
  for (const Extent& extent : extents) {
    if (extent.begin != covered)
      Throw(ErrorKind::kCorrupt,
            "{}: tensor {} starts at data byte {}; the one before it ends at {} ({})", path,
            extent.name, extent.begin, covered,
            extent.begin < covered ? "they overlap" : "there is a gap");
    covered = extent.end;
  }
  if (covered != data.size())
    Throw(ErrorKind::kCorrupt, "{}: holds {} data bytes; its tensors need {}", path, data.size(),
          covered);
}

std::map<std::string, std::string> ReadMetadata(const Json& value, const std::string& path) {
  const JsonFields fields(value, path, "__metadata__");
  std::map<std::string, std::string> metadata;
  for (const auto& [key, unused] : fields.json().items()) metadata[key] = fields.String(key);
  return metadata;
}

// One member of the header as a view of the file's data.
TensorView ReadTensor(const std::string& name, const Json& value, std::span<const std::byte> data,
                      const std::string& path) {
  const JsonFields entry(value, path, name);
  const DType dtype = ParseDType(entry.String("dtype"), entry.Where("dtype"));
  const std::vector<int64_t> dims = ReadDims(entry);
  const auto [begin, end] = ReadOffsets(entry, data.size());
  const std::optional<uint64_t> expected = CheckedBytes(dims, dtype);
  if (expected != end - begin)
    Throw(ErrorKind::kCorrupt,
          "{}: tensor {} of dtype {} and shape {} has {} bytes; it must have {}", path, name,
          DTypeName(dtype), Shape(dims).ToString(), end - begin,
          expected ? fmt::to_string(*expected) : "fewer than 2^62");
  return TensorView(dtype, Shape(dims), data.data() + begin);
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::string& path) : file_(path), path_(path) {
  Parse(file_.bytes());
}

SafetensorsFile::SafetensorsFile(std::span<const std::byte> bytes, std::string name)
    : path_(std::move(name)) {
  Parse(bytes);
}

void SafetensorsFile::Parse(std::span<const std::byte> bytes) {
  if (bytes.size() < 8) {
    RefuseOtherFormats(bytes, path_);
    Throw(ErrorKind::kCorrupt, "{}: has {} bytes; a safetensors file has at least 8", path_,
          bytes.size());
  }
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), 8);
  if (header_bytes > kMaxHeaderBytes || header_bytes > bytes.size() - 8) {
    RefuseOtherFormats(bytes, path_);
    Throw(ErrorKind::kCorrupt,
          "{}: header length is {}; at most {} bytes follow it and {} are allowed", path_,
          header_bytes, bytes.size() - 8, kMaxHeaderBytes);
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, header_bytes);
  if (text.find('\0') != std::string_view::npos)
    Throw(ErrorKind::kCorrupt, "{}: its header holds a zero byte; it may be padded by spaces only",
          path_);
  const std::span<const std::byte> data = bytes.subspan(8 + header_bytes);
  bool has_metadata = false;
  const Json json =
      ParseJsonMembers(text, path_, "", [&](const std::string& name, const Json& value) {
        if (name != "__metadata__")
          return tensors_.try_emplace(name, ReadTensor(name, value, data, path_)).second;
        if (!value.is_null()) metadata_ = ReadMetadata(value, path_);
        return !std::exchange(has_metadata, true);
      });
  const JsonFields document(json, path_);  // refuses what is no object
  CheckExtents(tensors_, data, path_);
  file_.LetGoOfFirst(8 + header_bytes);
  CopyUnaligned();
}

void SafetensorsFile::CopyUnaligned() {
  for (auto& [name, view] : tensors_) {
    const auto address = reinterpret_cast<uintptr_t>(view.raw());
    if (address % static_cast<uintptr_t>(DTypeBytes(view.dtype())) == 0 || view.num_bytes() == 0)
      continue;
    Buffer& copy = aligned_copies_.emplace_back(view.num_bytes());
    std::memcpy(copy.data(), view.raw(), static_cast<size_t>(view.num_bytes()));
    view = TensorView(view.dtype(), view.shape(), copy.data());
  }
}

TensorView SafetensorsFile::Get(const std::string& name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) Throw(ErrorKind::kNotFound, "{}: has no tensor {}", path_, name);
  return it->second;
}

TensorView SafetensorsFile::Get(const std::string& name, DType dtype, const Shape& shape) const {
  const TensorView view = Get(name);
  if (view.dtype() != dtype || view.shape() != shape)
    Throw(ErrorKind::kInvalid, "{}: tensor {} is {} {}; it must be {} {}", path_, name,
          DTypeName(view.dtype()), view.shape().ToString(), DTypeName(dtype), shape.ToString());
  return view;
}

std::string SafetensorsHeader(std::span<const TensorLayout> tensors,
                              const std::map<std::string, std::string>& metadata) {
  // Member by member: an ordered object looks for each name among all before it.
  std::set<std::string_view> names;
  std::string text = "{";
  const auto add = [&](const std::string& name, const nlohmann::ordered_json& value) {
    WIDELOAD_CHECK(names.insert(name).second, "tensor {} is there twice", name);
    text += text.size() > 1 ? "," : "";
    text += DumpJson(name) + ":" + value.dump(-1, ' ', false, Json::error_handler_t::replace);
  };
  const std::string metadata_name = "__metadata__";
  if (!metadata.empty()) add(metadata_name, metadata);
  int64_t offset = 0;
  for (const TensorLayout& tensor : tensors) {
    std::vector<int64_t> dims;
    for (int i = 0; i < tensor.shape.rank(); ++i) dims.push_back(tensor.shape[i]);
    const int64_t end = offset + tensor.shape.num_elements() * DTypeBytes(tensor.dtype);
    add(tensor.name,
        {{"dtype", DTypeName(tensor.dtype)}, {"shape", dims}, {"data_offsets", {offset, end}}});
    offset = end;
  }
  text += "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t header_bytes = text.size();
  return std::string(reinterpret_cast<const char*>(&header_bytes), 8) + text;
}

void WriteSafetensors(const std::string& path,
                      std::span<const std::pair<std::string, TensorView>> tensors,
                      const std::map<std::string, std::string>& metadata) {
  std::vector<TensorLayout> layouts;
  for (const auto& [name, view] : tensors) {
    WIDELOAD_CHECK(view.dense(), "{}: tensor {} has padded rows", path, name);
    layouts.push_back({.name = name, .dtype = view.dtype(), .shape = view.shape()});
  }
  WholeFileWriter writer(path);
  writer.Append(SafetensorsHeader(layouts, metadata));
  for (const auto& [name, view] : tensors)
    writer.Append(std::span(static_cast<const std::byte*>(view.raw()),
                            static_cast<size_t>(view.num_bytes())));
  writer.Commit();
}

}  // namespace wideload
