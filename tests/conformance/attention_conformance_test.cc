// Paged attention of every kernel set: against the reference, and the same bits however a sequence
// comes in pieces, in company, on ranks that divide its blocks, or in blocks that hold something
// else behind it.
#include <cmath>
#include <limits>
#include <memory>

#include "ops_conformance.h"

namespace wideload::compute {
namespace {

struct Case {
  AttentionShape shape;
  int64_t tokens;
  int64_t block_tokens;
  bool values_in_keys = false;
};

// Of sets that round queries and weights to bf16 as well: a score of some units moves by 2^-9 of
// it, and every weight by as much.
constexpr float kRoundedWeightsTolerance = 2 * kBf16Tolerance;

// A sequence of random q, k, v and a cache of its own whose unused places are NaN.
struct Sequence {
  Sequence(DType dtype, const Case& c)
      : Sequence(dtype, c.shape, c.tokens, c.block_tokens, c.values_in_keys) {}
  Sequence(DType dtype, const AttentionShape& attention, int64_t num_tokens,
           int64_t tokens_per_block, bool in_keys)
      : shape(attention),
        tokens(num_tokens),
        block_tokens(tokens_per_block),
        values_in_keys(in_keys),
        q(RandomTensor(DType::kF32, {num_tokens, shape.q_heads * shape.key_dim}, 1)),
        k(RandomBf16Values(DType::kF32, {num_tokens, shape.kv_heads * shape.key_dim}, 2)),
        v(RandomBf16Values(DType::kF32, {num_tokens, shape.kv_heads * shape.value_dim}, 3)),
        num_blocks((num_tokens + tokens_per_block - 1) / tokens_per_block + 2),
        keys(dtype, {num_blocks, shape.kv_heads, tokens_per_block, shape.key_dim}),
        values(dtype, {num_blocks, shape.kv_heads, tokens_per_block, shape.value_dim}) {
    Clear();
    // Back to front, so that order in memory is not order of positions.
    for (int64_t b = num_blocks - 1; b >= 1; --b) blocks.push_back(static_cast<int32_t>(b));
  }
  void Clear() {
    for (int64_t b = 0; b < num_blocks; ++b) ClearBlock(b);
  }
  void ClearBlock(int64_t block) {
    for (const OwnedTensor* part : {&keys, &values}) {
      const int64_t size = part->size() / num_blocks;
      for (int64_t i = block * size; i < (block + 1) * size; ++i) {
        SetElement(part->view(), i, std::numeric_limits<float>::quiet_NaN());
      }
    }
  }
  PagedKv cache() const {
    return {.keys = keys.view(), .values = values_in_keys ? TensorView() : values.view()};
  }
  TensorView value_rows(int64_t first, int64_t count) const {
    return values_in_keys ? TensorView() : v.view().Rows(first, count);
  }

  AttentionShape shape;
  int64_t tokens;
  int64_t block_tokens;
  bool values_in_keys;
  OwnedTensor q, k, v;
  int64_t num_blocks;
  OwnedTensor keys, values;
  std::vector<int32_t> blocks;
};

// Gives back the blocks that no position from `first` on sees.
void ForgetBefore(Sequence& s, int64_t first, std::vector<int32_t>& blocks) {
  const int64_t visible = s.shape.FirstVisible(first);
  for (int64_t b = 0; (b + 1) * s.block_tokens <= visible; ++b) {
    int32_t& block = blocks[static_cast<size_t>(b)];
    if (block >= 0) s.ClearBlock(block);
    block = -1;
  }
}

// Stores and attends in chunks of `chunk` tokens, as chunked prefill and decode do; blocks behind a
// window are taken away.
OwnedTensor Attend(const Exec& exec, Sequence& s, int64_t chunk) {
  s.Clear();
  std::vector<int32_t> blocks = s.blocks;
  OwnedTensor y(exec.precision().activations, {s.tokens, s.shape.q_heads * s.shape.value_dim});
  for (int64_t first = 0; first < s.tokens; first += chunk) {
    const int64_t count = std::min(chunk, s.tokens - first);
    ForgetBefore(s, first, blocks);
    const std::vector<KvSequence> batch = {
        {.num_tokens = count, .start_position = first, .blocks = blocks}};
    StoreKv(exec, s.k.view().Rows(first, count), s.value_rows(first, count), batch, s.cache());
    PagedAttention(exec, s.shape, s.q.view().Rows(first, count), batch, s.cache(),
                   y.view().Rows(first, count));
  }
  return y;
}

const float kSinks[] = {0.5F, -3.0F, 8.0F, 0.0F, 1.0F, 2.0F, -1.0F, 30.0F};
const std::vector<Case> kCases = {
    {{.q_heads = 6, .kv_heads = 2, .key_dim = 24, .value_dim = 24, .scale = 0.2F}, 45, 16},
    {{.q_heads = 4, .kv_heads = 4, .key_dim = 64, .value_dim = 64, .scale = 0.125F}, 70, 32},
    {{.q_heads = 40, .kv_heads = 1, .key_dim = 40, .value_dim = 40, .scale = 0.3F}, 37, 7},
    {{.q_heads = 2, .kv_heads = 1, .key_dim = 1, .value_dim = 1, .scale = 1.0F}, 20, 1},
    {{.q_heads = 8, .kv_heads = 2, .key_dim = 128, .value_dim = 128, .scale = 0.09F}, 33, 24},
    {{.q_heads = 3, .kv_heads = 1, .key_dim = 40, .value_dim = 17, .scale = 0.2F}, 50, 32},
    // As many queries of a KV head as a tile may have, and fewer and more.
    {{.q_heads = 5, .kv_heads = 1, .key_dim = 32, .value_dim = 72, .scale = 0.2F}, 35, 32},
    {{.q_heads = 14, .kv_heads = 2, .key_dim = 48, .value_dim = 33, .scale = 0.2F}, 67, 32},
    {{.q_heads = 16, .kv_heads = 2, .key_dim = 96, .value_dim = 96, .scale = 0.1F}, 70, 32},
    {{.q_heads = 9, .kv_heads = 1, .key_dim = 64, .value_dim = 64, .scale = 0.1F}, 40, 32},
    {{.q_heads = 70, .kv_heads = 1, .key_dim = 76, .value_dim = 65, .scale = 0.1F}, 37, 32, true},
    {{.q_heads = 4, .kv_heads = 2, .key_dim = 24, .value_dim = 24, .scale = 0.2F, .window = 13},
     100,
     16},
    {{.q_heads = 4, .kv_heads = 2, .key_dim = 24, .value_dim = 24, .scale = 0.2F, .window = 1},
     40,
     7},
    {{.q_heads = 4, .kv_heads = 1, .key_dim = 24, .value_dim = 24, .scale = 0.2F, .chunk = 19},
     100,
     32},
    {{.q_heads = 8,
      .kv_heads = 2,
      .key_dim = 33,
      .value_dim = 20,
      .scale = 0.2F,
      .window = 32,
      .chunk = 48,
      .sinks = kSinks},
     130,
     32},
    {{.q_heads = 8, .kv_heads = 4, .key_dim = 16, .value_dim = 16, .scale = 0.25F, .sinks = kSinks},
     45,
     32},
    {{.q_heads = 8, .kv_heads = 2, .key_dim = 24, .value_dim = 20, .scale = 0.2F, .sinks = kSinks},
     300,
     16},
};

// Those that a kernel set has: on a device values have places of their own.
std::vector<Case> CasesOf(KernelSet kernels) {
  std::vector<Case> cases = kCases;
  if (IsOnDevice(kernels)) std::erase_if(cases, [](const Case& c) { return c.values_in_keys; });
  return cases;
}

float AttentionTolerance(KernelSet kernels, float output_tolerance) {
  return IsOnDevice(kernels) ? kRoundedWeightsTolerance : output_tolerance;
}

TEST_P(OpsConformance, AttentionAgreesWithTheReference) {
  for (const Case& c : CasesOf(kernels())) {
    Sequence mine(compute_dtype(), c);
    Sequence reference(DType::kF32, c);
    const OwnedTensor expected = Attend(Reference(), reference, c.tokens);
    EXPECT_TRUE(IsNear(Attend(With(2), mine, c.tokens), expected,
                       AttentionTolerance(kernels(), output_tolerance())))
        << c.shape.key_dim;
  }
}

TEST_P(OpsConformance, AttentionHasTheSameBitsInAnyChunksOnAnyThreads) {
  for (const Case& c : CasesOf(kernels())) {
    Sequence s(compute_dtype(), c);
    const OwnedTensor whole = Attend(With(1), s, c.tokens);
    for (const int64_t chunk : {1, 3, 7, 16, 21, 32}) {
      const OwnedTensor pieces = Attend(With(static_cast<int>(chunk % 3 + 1)), s, chunk);
      EXPECT_TRUE(SameBits(pieces.view(), whole.view()))
          << "head " << c.shape.key_dim << " chunk " << chunk;
    }
  }
}

void StoreAll(const Exec& exec, const Sequence& s) {
  const std::vector<KvSequence> all = {{.num_tokens = s.tokens, .blocks = s.blocks}};
  StoreKv(exec, s.k.view(), s.v.view(), all, s.cache());
}

// What the last `count` tokens of a stored sequence see, `chunk` tokens at a time.
OwnedTensor AttendToTheEnd(const Exec& exec, const Sequence& s, int64_t count, int64_t chunk) {
  OwnedTensor y(exec.precision().activations, {count, s.shape.q_heads * s.shape.value_dim});
  for (int64_t row = 0; row < count; row += chunk) {
    const int64_t rows = std::min(chunk, count - row);
    const int64_t first = s.tokens - count + row;
    const std::vector<KvSequence> batch = {
        {.num_tokens = rows, .start_position = first, .blocks = s.blocks}};
    PagedAttention(exec, s.shape, s.q.view().Rows(first, rows), batch, s.cache(),
                   y.view().Rows(row, rows));
  }
  return y;
}

TEST_P(OpsConformance, AttentionOverALongContextHasTheSameBitsInAnyChunks) {
  const std::vector<Case> cases = {
      {{.q_heads = 8, .kv_heads = 2, .key_dim = 40, .value_dim = 24, .scale = 0.2F}, 1000, 16},
      {{.q_heads = 6,
        .kv_heads = 1,
        .key_dim = 128,
        .value_dim = 128,
        .scale = 0.1F,
        .window = 300,
        .sinks = std::span(kSinks).first(6)},
       700,
       32},
      {{.q_heads = 2, .kv_heads = 1, .key_dim = 33, .value_dim = 40, .scale = 0.2F, .chunk = 270},
       560,
       7},
      {{.q_heads = 2, .kv_heads = 1, .key_dim = 256, .value_dim = 200, .scale = 0.06F}, 530, 64},
  };
  constexpr int64_t kCount = 18;
  for (const Case& c : cases) {
    const Sequence s(compute_dtype(), c);
    StoreAll(With(1), s);
    const OwnedTensor whole = AttendToTheEnd(With(1), s, kCount, kCount);
    const Sequence reference(DType::kF32, c);
    StoreAll(Reference(), reference);
    EXPECT_TRUE(
        IsNear(whole, AttendToTheEnd(Reference(), reference, kCount, kCount), output_tolerance()))
        << "head " << c.shape.key_dim;
    for (const int64_t chunk : {1, 4, 8, 17}) {
      EXPECT_TRUE(SameBits(AttendToTheEnd(With(2), s, kCount, chunk).view(), whole.view()))
          << "head " << c.shape.key_dim << " chunk " << chunk;
    }
  }
}

TEST_P(OpsConformance, AttentionOfASequenceDoesNotDependOnItsCompany) {
  const Case& c = kCases[0];
  Sequence s(compute_dtype(), c);
  const OwnedTensor alone = Attend(With(1), s, c.tokens);

  // Three sequences of one cache: 5 decode-like rows, the sequence itself, 9 rows; strided rows.
  const int64_t total = 5 + c.tokens + 9;
  const int64_t cache_blocks = s.num_blocks + 4;
  const OwnedTensor keys(compute_dtype(),
                         {cache_blocks, c.shape.kv_heads, c.block_tokens, c.shape.key_dim});
  const OwnedTensor values(compute_dtype(), keys.view().shape());
  const auto embed = [&](const OwnedTensor& middle) {
    OwnedTensor all = RandomTensor(DType::kF32, {total, middle.view().dim(1)}, 9);
    for (int64_t i = 0; i < middle.size(); ++i) {
      SetElement(all.view(), 5 * middle.view().dim(1) + i, middle.at(i));
    }
    return all;
  };
  const OwnedTensor q = embed(s.q);
  const OwnedTensor k = embed(s.k);
  const OwnedTensor v = embed(s.v);
  const std::vector<int32_t> first_blocks = {static_cast<int32_t>(cache_blocks - 1)};
  const std::vector<int32_t> last_blocks = {static_cast<int32_t>(cache_blocks - 2), 0};
  const std::vector<KvSequence> batch = {
      {.first_row = 0, .num_tokens = 5, .start_position = 0, .blocks = first_blocks},
      {.first_row = 5, .num_tokens = c.tokens, .start_position = 0, .blocks = s.blocks},
      {.first_row = 5 + c.tokens, .num_tokens = 9, .start_position = 11, .blocks = last_blocks}};
  const PagedKv cache = {.keys = keys.view(), .values = values.view()};
  const StridedTensor q_strided(q, 3);
  const StridedTensor k_strided(k, 6);
  const OwnedTensor y(compute_dtype(), q.view().shape());
  StoreKv(With(3), k_strided.view(), v.view(), batch, cache);
  PagedAttention(With(3), c.shape, q_strided.view(), batch, cache, y.view());
  EXPECT_TRUE(SameBits(y.view().Rows(5, c.tokens), alone.view()));
}

// What ranks compute that have every num_parts-th block each, in chunks of `chunk` tokens, added.
OwnedTensor AttendInParts(const Exec& exec, const Case& c, int64_t num_parts, int64_t chunk) {
  std::vector<std::unique_ptr<Sequence>> ranks;
  for (int64_t part = 0; part < num_parts; ++part)
    ranks.push_back(std::make_unique<Sequence>(exec.precision().kv_cache, c));
  const Sequence& s = *ranks.front();
  const int64_t width = PartialWidth(c.shape);
  const OwnedTensor y(exec.precision().activations,
                      {c.tokens, c.shape.q_heads * c.shape.value_dim});
  for (int64_t first = 0; first < c.tokens; first += chunk) {
    const int64_t count = std::min(chunk, c.tokens - first);
    const std::vector<KvSequence> batch = {
        {.num_tokens = count, .start_position = first, .blocks = s.blocks}};
    const OwnedTensor parts(DType::kF32, {num_parts, count, width});
    for (int64_t part = 0; part < num_parts; ++part) {
      PagedKv cache = ranks[static_cast<size_t>(part)]->cache();
      cache.part = part;
      cache.num_parts = num_parts;
      StoreKv(exec, s.k.view().Rows(first, count), s.value_rows(first, count), batch, cache);
      PartialAttention(exec, c.shape, s.q.view().Rows(first, count), batch, cache,
                       TensorView(DType::kF32, {count, width},
                                  parts.view().data<float>() + part * count * width));
    }
    MergeAttention(exec, c.shape, parts.view(), y.view().Rows(first, count));
  }
  return CopyOf(y.view(), exec.precision().activations);
}

TEST_P(OpsConformance, AttentionOfRanksThatDivideTheBlocksHasTheBitsOfOne) {
  for (const Case& c : kCases) {
    Sequence s(compute_dtype(), c);
    const OwnedTensor whole = Attend(With(1), s, c.tokens);
    for (const int64_t num_parts : {1, 2, 4, 8}) {
      const int64_t chunk = num_parts == 2 ? 9 : c.tokens;
      EXPECT_TRUE(SameBits(AttendInParts(With(2), c, num_parts, chunk).view(), whole.view()))
          << "head " << c.shape.key_dim << " of " << num_parts << " parts";
    }
  }
}

// Clear() fills the cache with NaN, so every test above would see one that leaks; here also behind
// the query within its own step.
TEST_P(OpsConformance, AttentionNeverMultipliesMaskedPlaces) {
  const Case& c = kCases[1];
  Sequence s(compute_dtype(), c);
  const OwnedTensor y = Attend(With(1), s, c.tokens);
  for (int64_t i = 0; i < y.size(); ++i) ASSERT_TRUE(std::isfinite(y.at(i))) << i;
  // A NaN key and value at the last position: only the last row may see it.
  OwnedTensor clean = CopyOf(y.view(), compute_dtype());
  const int64_t width = s.k.view().dim(1);
  for (int64_t i = 0; i < width; ++i) {
    SetElement(s.k.view(), (c.tokens - 1) * width + i, std::numeric_limits<float>::quiet_NaN());
    SetElement(s.v.view(), (c.tokens - 1) * width + i, std::numeric_limits<float>::quiet_NaN());
  }
  const OwnedTensor spoiled = Attend(With(1), s, c.tokens);
  EXPECT_TRUE(SameBits(spoiled.view().Rows(0, c.tokens - 1), clean.view().Rows(0, c.tokens - 1)));
  EXPECT_TRUE(std::isnan(spoiled.at(spoiled.size() - 1)));
}

}  // namespace
}  // namespace wideload::compute
