#include "runtime/servers/block_service.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "base/error.h"
#include "model/registry.h"
#include "runtime/rank.h"
#include "runtime/servers/block_reader.h"
#include "runtime/servers/block_request.h"

namespace wideload::runtime {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kPatience{20'000};

// Caches of the ranks of a group with two micro-batches, of the second one; full of other bytes
// each.
struct GroupCaches {
  GroupCaches(const model::ModelSpec& of_spec, const parallel::Layout& layout, uint32_t seed)
      : spec(of_spec) {
    options.layout = layout;
    options.num_micro_batches = 2;
    options.num_kv_blocks = 12;
    options.max_num_tokens = 64;
    options.max_batch_size = 2;
    options.kernels = compute::KernelSet::kReference;
    std::mt19937 random(seed);
    for (int32_t r = 0; r < layout.world(); ++r) {
      shapes.push_back(CacheShapeOf(spec, options, r));
      memory.emplace_back(CacheBytesOf(spec, options, r));
      for (std::byte& byte : Bytes(r)) byte = static_cast<std::byte>(random());
      caches.push_back(std::move(CachesIn(Bytes(r), shapes.back(), 2).back()));
    }
  }
  std::span<std::byte> Bytes(int32_t r) const {
    const Buffer& buffer = memory[static_cast<size_t>(r)];
    return {buffer.data(), static_cast<size_t>(buffer.num_bytes())};
  }
  CachePart PartOf(int32_t r) const { return CachePartOf(options, spec.num_layers(), r); }
  BlockService::Source SourceOf(int32_t r) const {
    return {.spec = &spec,
            .part = PartOf(r),
            .shape = shapes[static_cast<size_t>(r)],
            .num_micro_batches = 2,
            .memory = Bytes(r)};
  }
  CachedSequence Sequence(const std::vector<BlockTable>& tables) const {
    CachedSequence sequence{
        .spec = &spec, .parts = {}, .caches = {}, .tables = tables, .server = 0};
    for (const kv::PagedCache& cache : caches) {
      sequence.parts.push_back(PartOf(static_cast<int32_t>(sequence.caches.size())));
      sequence.caches.push_back(&cache);
    }
    return sequence;
  }

  const model::ModelSpec& spec;
  EngineOptions options;
  std::vector<kv::CacheShape> shapes;
  std::vector<Buffer> memory;
  std::vector<kv::PagedCache> caches;
};

model::ModelSpec SpecOf(const std::string& name) {
  return model::ReadModel(std::string(std::getenv("WIDELOAD_SOURCE_DIR")) +
                          "/testdata/models/tiny-" + name)
      .spec;
}

struct Layouts {
  parallel::Layout from;
  parallel::Layout to;
};

std::vector<BlockTable> Tables(size_t count, std::vector<int32_t> blocks) {
  return std::vector(count, BlockTable{.blocks = std::move(blocks), .num_given_back = 0});
}

// Has every rank of one group read from every rank of another, and the same copied.
void ExpectSameBytes(const model::ModelSpec& spec, const Layouts& layouts) {
  const GroupCaches there(spec, layouts.from, 1);
  const GroupCaches copied(spec, layouts.to, 2);
  const GroupCaches read(spec, layouts.to, 2);
  const size_t num_classes = there.shapes[0].classes.size();
  const CachedSequence from = there.Sequence(Tables(num_classes, {3, 1, 2}));
  const std::vector<BlockTable> to = Tables(num_classes, {0, 2, 1, 3, 5, 4});
  int64_t num_bytes = 0;
  for (int32_t r = 0; r < layouts.from.world(); ++r) {
    BlockService service(there.SourceOf(r), true);
    BlockReader reader(service.card(), "it", kPatience);
    const auto rank = static_cast<size_t>(r);
    for (int32_t t = 0; t < layouts.to.world(); ++t) {
      const auto part = [&](const GroupCaches& group) {
        return CachedPart{
            .part = group.PartOf(t), .cache = group.caches[static_cast<size_t>(t)], .tables = to};
      };
      const int64_t expected = CopyFrom(from, rank, part(copied), 1);
      reader.Ask({.sequence = from, .rank = rank, .micro_batch = 1}, part(read), 1);
      const FetchResult result = reader.Take([](bool) {});
      EXPECT_EQ(result.error, "");
      EXPECT_EQ(result.num_bytes, expected);
      num_bytes += expected;
    }
  }
  EXPECT_GT(num_bytes, 0);
  for (int32_t t = 0; t < layouts.to.world(); ++t)
    EXPECT_TRUE(std::ranges::equal(copied.Bytes(t), read.Bytes(t))) << "rank " << t;
}

// Heads, layers and blocks on as many ranks or not.
TEST(BlockService, SendsWhatACopyWouldHaveCopied) {
  const Layouts all_layouts[] = {{{}, {.tp = 2}},
                                 {{.tp = 2}, {}},
                                 {{.tp = 2}, {.tp = 2}},
                                 {{}, {}},
                                 {{.pp = 2}, {.tp = 2}},
                                 {{.tp = 2, .pp = 2}, {.pp = 3}},
                                 {{.cp = 2}, {.pp = 2}},
                                 {{.tp = 2}, {.tp = 2, .cp = 2}},
                                 {{.cp = 2, .pp = 2}, {.cp = 4}}};
  for (const std::string name : {"qwen3-moe", "deepseek-v3", "gpt-oss"}) {
    const model::ModelSpec spec = SpecOf(name);
    for (const Layouts& layouts : all_layouts) {
      SCOPED_TRACE(
          fmt::format("{}, {} to {} ranks", name, layouts.from.world(), layouts.to.world()));
      ExpectSameBytes(spec, layouts);
    }
  }
}

class OneBlockService : public testing::Test {
 protected:
  FetchResult Read(BlockReader& reader) {
    const CachedSequence from = there_.Sequence(Tables(1, {3, 1}));
    const std::vector<BlockTable> to = Tables(1, {0, 2});
    reader.Ask({.sequence = from},
               {.part = here_.PartOf(0), .cache = here_.caches[0], .tables = to}, 0);
    return reader.Take([](bool) {});
  }

  model::ModelSpec spec_ = SpecOf("qwen3-moe");
  GroupCaches there_{spec_, {}, 1};
  GroupCaches here_{spec_, {}, 2};
};

TEST_F(OneBlockService, EndsTheConnectionOfWhoAsksForWhatIsNotThereAndServesOthers) {
  BlockService service(there_.SourceOf(0), true);
  BlockReader other(service.card(), "it", kPatience);
  const CachePart one = here_.PartOf(0);
  const auto heads = [&](int32_t rank, int32_t size) {
    CachePart part = one;
    part.heads = {.rank = rank, .size = size};
    return part;
  };
  const auto layers = [&](int64_t begin, int64_t end) {
    CachePart part = one;
    part.layers = {.begin = begin, .end = end};
    return part;
  };
  for (const BlockRequest& wrong : {BlockRequest{.reader = one, .blocks = {{12}}},
                                    BlockRequest{.reader = one, .blocks = {{-1}}},
                                    BlockRequest{.reader = one, .blocks = {{1}, {1}}},
                                    BlockRequest{.reader = one, .blocks = {std::vector(13, 1)}},
                                    BlockRequest{.reader = one, .micro_batch = 2, .blocks = {{1}}},
                                    BlockRequest{.reader = one, .micro_batch = -1, .blocks = {{1}}},
                                    BlockRequest{.reader = layers(-1, 2), .blocks = {{1}}},
                                    BlockRequest{.reader = layers(2, 1), .blocks = {{1}}},
                                    BlockRequest{.reader = layers(0, 99), .blocks = {{1}}},
                                    BlockRequest{.reader = heads(2, 2), .blocks = {{1}}},
                                    BlockRequest{.reader = heads(0, 1 << 20), .blocks = {{1}}}}) {
    comm::LifeCard card = service.card();
    const auto socket = ConnectAndHear(card, "it", kPatience);
    std::vector<std::byte> bytes;
    WriteBlockRequest(wrong, bytes);
    socket->Send(bytes);
    EXPECT_EQ(socket->Receive(), std::nullopt);
  }
  EXPECT_EQ(Read(other).error, "");
}

TEST_F(OneBlockService, ThatIsGoneOrSilentIsToldAndOneThatIsBackIsFound) {
  auto service = std::make_unique<BlockService>(there_.SourceOf(0), true);
  BlockReader reader(service->card(), "the rank", milliseconds(100));
  EXPECT_EQ(Read(reader).error, "");
  service.reset();
  EXPECT_EQ(Read(reader).error, "the rank has not sent them");
  EXPECT_EQ(Read(reader).error, "the rank is not to be reached");
  MessageListener silent(true);
  std::unique_ptr<MessageSocket> accepted;
  std::jthread acceptor([&] { accepted = silent.AcceptAndGreet(); });
  BlockReader waiting(silent.card(), "the rank", milliseconds(20));
  acceptor.join();
  int num_signs = 0;
  const CachedSequence from = there_.Sequence(Tables(1, {3}));
  const std::vector<BlockTable> to = Tables(1, {0});
  waiting.Ask({.sequence = from}, {.part = here_.PartOf(0), .cache = here_.caches[0], .tables = to},
              0);
  EXPECT_EQ(waiting.Take([&](bool has_come) { num_signs += has_come ? 0 : 1; }).error,
            "the rank has not sent them");
  EXPECT_GT(num_signs, 0);
}

// A reader that never reads its answers holds up nobody else.
TEST_F(OneBlockService, DoesNotLetOneReaderWaitForAnother) {
  BlockService service(there_.SourceOf(0), true);
  comm::LifeCard card = service.card();
  const auto stopped = ConnectAndHear(card, "it", kPatience);
  std::vector<std::byte> bytes;
  WriteBlockRequest({.reader = here_.PartOf(0), .blocks = {{0, 1, 2, 3, 4, 5, 6, 7}}}, bytes);
  for (int i = 0; i < 400; ++i) stopped->Send(bytes);
  BlockReader reader(service.card(), "it", kPatience);
  EXPECT_EQ(Read(reader).error, "");
}

}  // namespace
}  // namespace wideload::runtime
