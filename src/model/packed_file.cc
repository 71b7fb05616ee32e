#include "model/packed_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace wideload::model {
namespace {

constexpr std::array<char, 8> kMagic = {'w', 'l', 'o', 'a', 'd', 'p', 'k', 'd'};
// Counts up when the bytes of any kernel set's packed weights change.
constexpr uint32_t kVersion = 1;
constexpr int64_t kPageBytes = 4096;

// The tables follow: layers, I32; bytes of the experts, I64; then FNV-1a of all before, U64.
struct FixedHeader {
  std::array<char, 8> magic = kMagic;
  uint32_t version = kVersion;
  int32_t num_layers = 0;
  int32_t num_experts = 0;
  int32_t reserved = 0;
  std::array<char, 32> kernels{};
  std::array<char, 64> checkpoint{};
};
static_assert(sizeof(FixedHeader) == 120);

int32_t NumExperts(const PackedKey& key) {
  return key.expert_bytes.empty() ? 0 : static_cast<int32_t>(key.expert_bytes[0].size());
}

int64_t HeaderBytes(const PackedKey& key) {
  const auto layers = static_cast<int64_t>(key.layers.size());
  const int64_t tables = layers * static_cast<int64_t>(sizeof(int32_t)) +
                         layers * NumExperts(key) * static_cast<int64_t>(sizeof(int64_t));
  const auto fixed = static_cast<int64_t>(sizeof(FixedHeader) + sizeof(uint64_t));
  return (fixed + tables + kPageBytes - 1) / kPageBytes * kPageBytes;
}

// Where each expert begins, and the bytes of the file.
std::vector<std::vector<int64_t>> OffsetsOf(const PackedKey& key, int64_t& file_bytes) {
  std::vector<std::vector<int64_t>> offsets;
  file_bytes = HeaderBytes(key);
  for (const std::vector<int64_t>& layer : key.expert_bytes) {
    std::vector<int64_t>& of_layer = offsets.emplace_back();
    for (const int64_t num_bytes : layer) {
      of_layer.push_back(file_bytes);
      file_bytes += Arena::PieceBytes(num_bytes);
    }
  }
  return offsets;
}

uint64_t Fnv1a(std::span<const std::byte> bytes) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const std::byte byte : bytes) {
    hash ^= static_cast<uint64_t>(byte);
    hash *= 0x100000001b3;
  }
  return hash;
}

template <size_t N>
void Put(const std::string& text, std::array<char, N>& to) {
  WIDELOAD_CHECK(text.size() < N, "'{}' has more than {} bytes", text, N - 1);
  std::ranges::copy(text, to.begin());
}

// Up to the first zero; what no person should see is left out.
template <size_t N>
std::string Text(const std::array<char, N>& from) {
  std::string text;
  for (const char c : from) {
    if (c == '\0') break;
    text += c > ' ' && c < '\x7f' ? c : '?';
  }
  return text;
}

}  // namespace

std::vector<std::byte> PackedHeader(const PackedKey& key) {
  FixedHeader fixed{.num_layers = static_cast<int32_t>(key.layers.size()),
                    .num_experts = NumExperts(key)};
  Put(key.kernels, fixed.kernels);
  Put(key.checkpoint, fixed.checkpoint);
  std::vector<std::byte> header(static_cast<size_t>(HeaderBytes(key)));
  size_t at = 0;
  const auto append = [&](const void* from, size_t num_bytes) {
    std::memcpy(header.data() + at, from, num_bytes);
    at += num_bytes;
  };
  append(&fixed, sizeof(fixed));
  for (const int32_t layer : key.layers) append(&layer, sizeof(layer));
  for (const std::vector<int64_t>& layer : key.expert_bytes)
    for (const int64_t num_bytes : layer) append(&num_bytes, sizeof(num_bytes));
  const uint64_t sum = Fnv1a(std::span(header).first(at));
  append(&sum, sizeof(sum));
  return header;
}

std::string PackedMismatch(std::span<const std::byte> bytes, uint64_t file_bytes,
                           const PackedKey& key) {
  FixedHeader found;
  if (bytes.size() < sizeof(found)) return "it is no file of packed experts";
  std::memcpy(&found, bytes.data(), sizeof(found));
  if (found.magic != kMagic) return "it is no file of packed experts";
  if (found.version != kVersion)
    return fmt::format("it has the layout version {}; this program reads {}", found.version,
                       kVersion);
  if (Text(found.kernels) != key.kernels)
    return fmt::format("it was packed for the kernels {}; this run has {}", Text(found.kernels),
                       key.kernels);
  if (Text(found.checkpoint) != key.checkpoint)
    return fmt::format("it was packed from another checkpoint (fingerprint {}; this one has {})",
                       Text(found.checkpoint), key.checkpoint);
  const std::vector<std::byte> wanted = PackedHeader(key);
  if (bytes.size() < wanted.size() || !std::ranges::equal(bytes.first(wanted.size()), wanted))
    return "its table is not that of this checkpoint, or damaged";
  int64_t wanted_bytes = 0;
  OffsetsOf(key, wanted_bytes);
  if (file_bytes != static_cast<uint64_t>(wanted_bytes))
    return fmt::format("it has {} bytes; {} are needed", file_bytes, wanted_bytes);
  return "";
}

PackedFileWriter::PackedFileWriter(const std::string& path, PackedKey key)
    : key_(std::move(key)), file_(path) {
  int64_t file_bytes = 0;
  offsets_ = OffsetsOf(key_, file_bytes);
  int64_t largest = 0;
  for (const std::vector<int64_t>& layer : key_.expert_bytes)
    for (const int64_t num_bytes : layer) largest = std::max(largest, Arena::PieceBytes(num_bytes));
  scratch_ = Buffer(largest);
  file_.Append(PackedHeader(key_));
}

Buffer PackedFileWriter::Next(int32_t moe_index, int32_t expert) {
  WriteLast();
  const auto layer = static_cast<size_t>(moe_index);
  const auto e = static_cast<size_t>(expert);
  last_offset_ = offsets_[layer][e];
  last_bytes_ = key_.expert_bytes[layer][e];
  const std::span<std::byte> whole(scratch_.data(), static_cast<size_t>(scratch_.num_bytes()));
  std::ranges::fill(whole, std::byte{});
  return Buffer::Over(whole.first(static_cast<size_t>(last_bytes_)));
}

void PackedFileWriter::WriteLast() {
  if (last_offset_ < 0) return;
  const auto num_bytes = static_cast<size_t>(Arena::PieceBytes(last_bytes_));
  file_.WriteAt(std::exchange(last_offset_, -1), std::span(scratch_.data(), num_bytes));
  ++num_written_;
}

void PackedFileWriter::Commit() {
  WriteLast();
  const auto wanted = static_cast<int64_t>(key_.layers.size()) * NumExperts(key_);
  WIDELOAD_CHECK(num_written_ == wanted, "{} experts written of {}", num_written_, wanted);
  file_.Commit();
}

PackedFile::PackedFile(const std::string& path, const PackedKey& key)
    : file_(path), expert_bytes_(key.expert_bytes) {
  const std::string mismatch = PackedMismatch(file_.bytes(), file_.bytes().size(), key);
  if (!mismatch.empty())
    Throw(ErrorKind::kInvalid, "{}: {}; remove it or name another file", path, mismatch);
  int64_t file_bytes = 0;
  offsets_ = OffsetsOf(key, file_bytes);
}

Buffer PackedFile::BytesOf(int32_t moe_index, int32_t expert) const {
  const auto layer = static_cast<size_t>(moe_index);
  const auto e = static_cast<size_t>(expert);
  const std::span<const std::byte> bytes = file_.bytes().subspan(
      static_cast<size_t>(offsets_[layer][e]), static_cast<size_t>(expert_bytes_[layer][e]));
  // A Buffer does not say whether its bytes may be written; weights that were packed are only read.
  return Buffer::Over({const_cast<std::byte*>(bytes.data()), bytes.size()});
}

}  // namespace wideload::model
