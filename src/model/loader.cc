#include "model/loader.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"

namespace wideload::model {
namespace {

using compute::PackedMatrix;
using compute::WeightFormat;
using compute::WeightSource;

// Read pages of the mapped files count as this process's memory until they are given back.
constexpr int64_t kMaxMappedBytes = int64_t{64} << 20;

bool IsPlainFloat(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16;
}

// Stands for a tensor that is not there while nothing is read.
TensorView NoTensor(DType dtype, const Shape& shape) {
  static constexpr std::byte kNothing{};
  return {dtype, shape, &kNothing};
}

// Of the stored values, without scales.
int64_t StoredBytes(const WeightSource& source) {
  const int64_t count = source.n() * source.k();
  const bool is_4_bit =
      source.format() == WeightFormat::kInt4 || source.format() == WeightFormat::kMxfp4;
  return is_4_bit ? count / 2 : count * DTypeBytes(source.dtype());
}

}  // namespace

WeightLoader::WeightLoader(checkpoint::Checkpoint& checkpoint, const LoadOptions& options)
    : checkpoint_(checkpoint), options_(options), total_bytes_(checkpoint.TotalBytes()) {
  WIDELOAD_CHECK(options.mode != LoadMode::kAttach || options.arena != nullptr,
                 "attaching without an arena");
  WIDELOAD_CHECK(options.shards.kept.size() == 1 || options.arena != nullptr ||
                     options.mode == LoadMode::kMeasure,
                 "parts of {} ranks without an arena", options.shards.kept.size());
}

// All that MXFP4 stores is called so.
bool WeightLoader::Has(const std::string& name) const {
  return checkpoint_.Has(name) || (options_.assumed && options_.assumed->quantization == "mxfp4" &&
                                   name.ends_with("_blocks"));
}

// What stands for a weight that is missing. Published fp8 checkpoints quantise all projections,
// those of compressed-tensors and MXFP4 the routed experts.
WeightSource WeightLoader::InsteadOf(const std::string& name, int64_t n, int64_t k) const {
  if (!options_.assumed) return WeightSource::Plain(name, NoTensor(DType::kBF16, {n, k}));
  const std::string& method = options_.assumed->quantization;
  const auto has = [&](std::string_view text) { return name.find(text) != std::string::npos; };
  const auto blocks = [](int64_t size) { return (size + 127) / 128; };
  if (method == "fp8" && has("_proj"))
    return WeightSource::Fp8(name, NoTensor(DType::kF8E4M3, {n, k}),
                             NoTensor(DType::kF32, {blocks(n), blocks(k)}));
  if (method == "compressed-tensors" && has(".experts."))
    return WeightSource::Int4(name, NoTensor(DType::kI32, {n, k / 8}),
                              NoTensor(DType::kBF16, {n, k / 32}));
  if (method == "mxfp4" && name.ends_with("_blocks"))
    return WeightSource::Mxfp4(name, NoTensor(DType::kU8, {n, k / 32, 16}),
                               NoTensor(DType::kU8, {n, k / 32}));
  return WeightSource::Plain(name, NoTensor(options_.assumed->dtype, {n, k}));
}

template <class Value, class Look>
Value WeightLoader::Noting(const std::string& name, const Look& look, const Value& instead) const {
  if (options_.mode != LoadMode::kMeasure) return look();
  const bool is_missing = !checkpoint_.Has(name) && !checkpoint_.Has(name + "_packed");
  if (is_missing && options_.assumed) return instead;
  if (is_missing && faults_.AddMissingAlike(name)) return instead;
  try {
    return look();
  } catch (const Error& error) {
    faults_.Add(name, is_missing, error);
    return instead;
  }
}

TensorView WeightLoader::Tensor(const std::string& name, const Shape& shape) const {
  const auto look = [&] {
    const TensorView view = checkpoint_.Get(name, shape);
    if (!IsPlainFloat(view.dtype()))
      Throw(ErrorKind::kUnsupported, "{}: tensor {} has the dtype {}; F32, BF16 or F16 is expected",
            checkpoint_.FileOf(name), name, DTypeName(view.dtype()));
    return view;
  };
  return Noting(name, look,
                NoTensor(options_.assumed ? options_.assumed->dtype : DType::kBF16, shape));
}

// int4 as compressed-tensors packs it.
WeightSource WeightLoader::PackedWeight(const std::string& name, int64_t n, int64_t k) const {
  const std::string weight = name + ".weight";
  const std::string packed = weight + "_packed";
  const int64_t group = compute::ScaleBlockK(WeightFormat::kInt4);
  if (k % group != 0)
    Throw(ErrorKind::kUnsupported,
          "{}: tensor {} has {} input features; implemented are multiples of the {} of a group",
          checkpoint_.FileOf(packed), packed, k, group);
  for (const char* more : {"_zero_point", "_g_idx"})
    if (Has(weight + more))
      Throw(ErrorKind::kUnsupported,
            "{}: holds {}; implemented are symmetric groups of {} in stored order",
            checkpoint_.FileOf(packed), weight + more, group);
  const TensorView shape = checkpoint_.Get(weight + "_shape", {2});
  const bool is_int = shape.dtype() == DType::kI64 || shape.dtype() == DType::kI32;
  const auto dim = [&](int64_t i) {
    return shape.dtype() == DType::kI64 ? shape.data<int64_t>()[i] : shape.data<int32_t>()[i];
  };
  if (!is_int || dim(0) != n || dim(1) != k)
    Throw(ErrorKind::kInvalid, "{}: tensor {} holds {}; it must hold [{}, {}] in I64 or I32",
          checkpoint_.FileOf(packed), weight + "_shape",
          is_int ? Shape{dim(0), dim(1)}.ToString() : DTypeName(shape.dtype()), n, k);
  return WeightSource::Int4(packed, checkpoint_.Get(packed, {n, k / 8}),
                            checkpoint_.Get(weight + "_scale", {n, k / group}));
}

WeightSource WeightLoader::BlockScaledWeight(const std::string& weight, int64_t n,
                                             int64_t k) const {
  const auto blocks = [](int64_t size) {
    constexpr int64_t kBlock = 128;
    return (size + kBlock - 1) / kBlock;
  };
  return WeightSource::Fp8(weight, checkpoint_.Get(weight, {n, k}),
                           checkpoint_.Get(weight + "_scale_inv", {blocks(n), blocks(k)}));
}

// What stands in the place of a weight that lacks one of its tensors.
void WeightLoader::RefuseIncomplete(const std::string& weight) const {
  const auto refuse = [&](std::string_view missing, std::string_view what) {
    std::string others;
    for (const char* more : {"", "_scale_inv", "_scale", "_shape"})
      if (Has(weight + more)) others += (others.empty() ? "" : " and ") + weight + more;
    Throw(ErrorKind::kNotFound, "{}: holds no tensor {}{}, {}; it holds {}", checkpoint_.folder(),
          weight, missing, what, others);
  };
  if (!Has(weight)) {
    if (Has(weight + "_scale_inv")) refuse("", "the values of these scales");
    if (Has(weight + "_scale") || Has(weight + "_shape"))
      refuse("_packed", "the int4 values of these scales");
  } else if (checkpoint_.Peek(weight).dtype() == DType::kF8E4M3) {
    refuse("_scale_inv", "the scales of its blocks of 128 x 128");
  }
}

WeightSource WeightLoader::Weight(const std::string& name, int64_t n, int64_t k) const {
  return Source(name + ".weight", n, k, [&] { return StoredWeight(name, n, k); });
}

WeightSource WeightLoader::Source(const std::string& name, int64_t n, int64_t k,
                                  const std::function<WeightSource()>& look) const {
  return Noting(name, look, InsteadOf(name, n, k));
}

WeightSource WeightLoader::StoredWeight(const std::string& name, int64_t n, int64_t k) const {
  const std::string weight = name + ".weight";
  if (Has(weight + "_packed")) return PackedWeight(name, n, k);
  if (Has(weight) && Has(weight + "_scale_inv")) return BlockScaledWeight(weight, n, k);
  RefuseIncomplete(weight);
  return WeightSource::Plain(weight, Tensor(weight, {n, k}));
}

WeightSource WeightLoader::WeightAndBias(const std::string& name, int64_t n, int64_t k) const {
  return Weight(name, n, k).WithBias(Tensor(name + ".bias", {n}));
}

void WeightLoader::NoteRead(int64_t num_bytes) {
  // A tensor that is read twice (tied embeddings) counts until the total is reached.
  done_bytes_ = std::min(done_bytes_ + num_bytes, total_bytes_);
  if (options_.progress) options_.progress(done_bytes_, total_bytes_);
  mapped_bytes_ += num_bytes;
  if (mapped_bytes_ < kMaxMappedBytes) return;
  checkpoint_.GiveBackPages();
  mapped_bytes_ = 0;
}

Buffer WeightLoader::Store(int64_t num_bytes) {
  stored_bytes_ += Arena::PieceBytes(num_bytes);
  if (options_.mode == LoadMode::kMeasure) return {};
  return options_.arena != nullptr ? options_.arena->Take(num_bytes) : Buffer(num_bytes);
}

// Where something is packed: where it will lie, or on the way there.
Buffer WeightLoader::Room(int64_t num_bytes) {
  return is_reading() && options_.upload != nullptr ? Buffer(num_bytes) : Store(num_bytes);
}

// What was packed in a Room, where it is to lie.
Buffer WeightLoader::Keep(Buffer packed) {
  if (!is_reading() || options_.upload == nullptr) return packed;
  Buffer kept = Store(packed.num_bytes());
  options_.upload->Copy(kept.data(), packed.data(), packed.num_bytes());
  options_.upload->Synchronize();
  return kept;
}

Buffer WeightLoader::Vector(const std::string& name, int64_t n) {
  const TensorView view = Tensor(name, {n});
  const int64_t num_bytes = n * DTypeBytes(DType::kF32);
  packed_bytes_ += num_bytes;
  Buffer buffer = Room(num_bytes);
  if (!is_reading()) return buffer;
  auto* out = reinterpret_cast<float*>(buffer.data());
  for (int64_t i = 0; i < n; ++i) out[i] = LoadFloat(view.dtype(), view.raw(), i);
  NoteRead(view.num_bytes());
  return Keep(std::move(buffer));
}

void WeightLoader::CheckScales(std::span<const WeightSource> sources, bool is_read) {
  // Measuring is to take no time: few scales are looked at, as those of fp8 blocks are.
  constexpr int64_t kMaxMeasured = int64_t{256} << 20;
  const bool is_measuring = options_.mode == LoadMode::kMeasure;
  if (options_.assumed) return;
  for (const WeightSource& source : sources) {
    if (!compute::IsBlockScaled(source.format())) continue;
    if (is_measuring) scale_bytes_ += source.scale_bytes();
    if (is_read || (is_measuring && scale_bytes_ <= kMaxMeasured))
      Noting(
          source.name(),
          [&] {
            source.CheckFiniteScales();
            return true;
          },
          false);
  }
}

WeightFormat WeightLoader::FormatOf(std::span<const WeightSource> sources) const {
  const WeightFormat first = sources[0].format();
  const bool is_one = std::ranges::all_of(
      sources, [&](const WeightSource& source) { return source.format() == first; });
  return is_one && compute::IsBlockScaled(first) ? first : compute::PlainFormat(options_.kernels);
}

PackedMatrix WeightLoader::Matrix(std::span<const WeightSource> sources,
                                  std::optional<WeightFormat> format) {
  return Pack({.format = format ? *format : FormatOf(sources)}, sources);
}

PackedMatrix WeightLoader::GateUp(const WeightSource& gate, const WeightSource& up) {
  const WeightSource sources[] = {gate, up};
  return Pack({.format = FormatOf(sources), .gate_up = true}, sources);
}

// Of `shape` the format and whether it is gate and up are given.
PackedMatrix WeightLoader::Pack(compute::PackedShape shape, std::span<const WeightSource> sources) {
  shape.kernels = options_.kernels;
  shape.k = sources[0].k();
  CheckScales(sources, is_reading());
  int64_t read_bytes = 0;
  for (const WeightSource& source : sources) {
    shape.n += source.n();
    shape.bias = shape.bias || source.has_bias();
    read_bytes += StoredBytes(source);
  }
  packed_bytes_ += shape.num_bytes();
  Buffer storage = Room(shape.num_bytes());
  if (options_.mode == LoadMode::kMeasure) return {};
  if (!is_reading()) return PackedMatrix::Over(shape, std::move(storage));
  PackedMatrix matrix = PackedMatrix::Pack(shape, sources, *options_.pool, std::move(storage));
  NoteRead(read_bytes);
  return PackedMatrix::Over(shape, Keep(std::move(matrix).TakeBytes()));
}

compute::ExpertShape WeightLoader::ShapeOf(const ExpertSources& sources) const {
  return {.kernels = options_.kernels,
          .format = FormatOf(sources.all()),
          .hidden = sources.gate.k(),
          .inner = sources.down.k(),
          .bias = sources.gate.has_bias(),
          .inner_part = options_.expert_parts.size > 1 ? sources.gate.n() : 0,
          .hidden_part = options_.expert_parts.size > 1 ? sources.down.n() : 0};
}

compute::ExpertWeights WeightLoader::Fill(const compute::ExpertShape& shape,
                                          const ExpertSources& sources, Buffer storage) {
  compute::ExpertWeights weights = compute::ExpertWeights::Pack(
      shape, sources.gate, sources.up, sources.down, *options_.pool, std::move(storage));
  NoteRead(StoredBytes(sources.gate) + StoredBytes(sources.up) + StoredBytes(sources.down));
  if (options_.upload == nullptr) return weights;
  return compute::ExpertWeights::Over(shape, Keep(std::move(weights).TakeBytes()));
}

compute::ExpertWeights WeightLoader::Expert(int32_t moe_index, int32_t block,
                                            const ExpertSources& sources) {
  const compute::ExpertShape shape = ShapeOf(sources);
  expert_bytes_ = std::max(expert_bytes_, shape.num_bytes());
  packed_bytes_ += shape.num_bytes();
  PlacedExpert place =
      options_.place_expert
          ? options_.place_expert(moe_index, block, shape.num_bytes())
          : PlacedExpert{.storage = Room(shape.num_bytes()), .is_read = is_reading()};
  const bool is_measuring = options_.mode == LoadMode::kMeasure;
  CheckScales(sources.all(), place.is_read && !is_measuring);
  if (is_measuring) return {};
  if (!place.is_read) return compute::ExpertWeights::Over(shape, std::move(place.storage));
  return Fill(shape, sources, std::move(place.storage));
}

WeightLoader::Table WeightLoader::Raw(const std::string& name, const Shape& shape) {
  const TensorView view = Tensor(name, shape);
  packed_bytes_ += view.num_bytes();
  Table table{.data = Room(view.num_bytes()), .dtype = view.dtype()};
  if (!is_reading()) return table;
  std::copy_n(static_cast<const std::byte*>(view.raw()), view.num_bytes(), table.data.data());
  NoteRead(view.num_bytes());
  table.data = Keep(std::move(table.data));
  return table;
}

}  // namespace wideload::model
