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

// Cache memory of the ranks of a group, full of other bytes each.
struct GroupCaches {
  GroupCaches(const model::ModelSpec& of_spec, int32_t size, uint32_t seed) : spec(of_spec) {
    EngineOptions options;
    options.layout.tp = size;
    options.num_kv_blocks = 12;
    options.max_num_tokens = 64;
    options.max_batch_size = 2;
    options.kernels = compute::KernelSet::kReference;
    std::mt19937 random(seed);
    for (int32_t r = 0; r < size; ++r) {
      shapes.push_back(CacheShapeOf(spec, options, r));
      memory.emplace_back(shapes.back().num_bytes());
      for (std::byte& byte : Bytes(r)) byte = static_cast<std::byte>(random());
      caches.emplace_back(shapes.back(), Bytes(r));
    }
  }
  std::span<std::byte> Bytes(int32_t r) const {
    const Buffer& buffer = memory[static_cast<size_t>(r)];
    return {buffer.data(), static_cast<size_t>(buffer.num_bytes())};
  }
  BlockService::Source SourceOf(int32_t r) const {
    return {.spec = &spec,
            .rank = {.rank = r, .size = static_cast<int32_t>(caches.size())},
            .shape = shapes[static_cast<size_t>(r)],
            .memory = Bytes(r)};
  }
  CachedSequence Sequence(const std::vector<BlockTable>& tables) const {
    CachedSequence sequence{.spec = &spec, .caches = {}, .tables = tables, .server = 0};
    for (const kv::PagedCache& cache : caches) sequence.caches.push_back(&cache);
    return sequence;
  }

  const model::ModelSpec& spec;
  std::vector<kv::CacheShape> shapes;
  std::vector<Buffer> memory;
  std::vector<kv::PagedCache> caches;
};

model::ModelSpec SpecOf(const std::string& name) {
  return model::ReadModel(std::string(std::getenv("WIDELOAD_SOURCE_DIR")) +
                          "/testdata/models/tiny-" + name)
      .spec;
}

std::vector<BlockTable> Tables(size_t count, std::vector<int32_t> blocks) {
  return std::vector(count, BlockTable{.blocks = std::move(blocks), .num_given_back = 0});
}

// Every rank of one group from every rank of another, heads on as many ranks or not.
TEST(BlockService, SendsWhatACopyWouldHaveCopied) {
  for (const std::string name : {"qwen3-moe", "deepseek-v3", "gpt-oss"}) {
    const model::ModelSpec spec = SpecOf(name);
    for (const auto& [from_size, to_size] : {std::pair{1, 2}, {2, 1}, {2, 2}, {1, 1}}) {
      const GroupCaches there(spec, from_size, 1);
      const GroupCaches copied(spec, to_size, 2);
      const GroupCaches read(spec, to_size, 2);
      const size_t num_classes = there.shapes[0].classes.size();
      const CachedSequence from = there.Sequence(Tables(num_classes, {3, 1, 2}));
      const std::vector<BlockTable> to = Tables(num_classes, {0, 2, 1, 3});
      for (int32_t r = 0; r < from_size; ++r) {
        BlockService service(there.SourceOf(r), true);
        BlockReader reader(service.card(), "it", kPatience);
        for (int32_t t = 0; t < to_size; ++t) {
          const auto part = [&](const GroupCaches& group) {
            return CachedPart{.rank = {.rank = t, .size = to_size},
                              .cache = group.caches[static_cast<size_t>(t)],
                              .tables = to};
          };
          const int64_t expected = CopyFrom(from, static_cast<size_t>(r), part(copied), 1);
          reader.Ask(from, static_cast<size_t>(r), part(read), 1);
          const FetchResult result = reader.Take([](bool) {});
          EXPECT_EQ(result.error, "");
          EXPECT_EQ(result.num_bytes, expected);
        }
      }
      for (int32_t t = 0; t < to_size; ++t)
        EXPECT_TRUE(std::ranges::equal(copied.Bytes(t), read.Bytes(t)))
            << name << " " << from_size << " to " << to_size;
    }
  }
}

class OneBlockService : public testing::Test {
 protected:
  FetchResult Read(BlockReader& reader) {
    const CachedSequence from = there_.Sequence(Tables(1, {3, 1}));
    const std::vector<BlockTable> to = Tables(1, {0, 2});
    reader.Ask(from, 0, {.rank = {.rank = 0, .size = 1}, .cache = here_.caches[0], .tables = to},
               0);
    return reader.Take([](bool) {});
  }

  model::ModelSpec spec_ = SpecOf("qwen3-moe");
  GroupCaches there_{spec_, 1, 1};
  GroupCaches here_{spec_, 1, 2};
};

TEST_F(OneBlockService, EndsTheConnectionOfWhoAsksForWhatIsNotThereAndServesOthers) {
  BlockService service(there_.SourceOf(0), true);
  BlockReader other(service.card(), "it", kPatience);
  const model::TensorRank one{.rank = 0, .size = 1};
  for (const BlockRequest& wrong :
       {BlockRequest{.reader = one, .blocks = {{12}}},
        BlockRequest{.reader = one, .blocks = {{-1}}},
        BlockRequest{.reader = one, .blocks = {{1}, {1}}},
        BlockRequest{.reader = one, .blocks = {std::vector(13, 1)}},
        BlockRequest{.reader = {.rank = 2, .size = 2}, .blocks = {{1}}},
        BlockRequest{.reader = {.rank = 0, .size = 1 << 20}, .blocks = {{1}}}}) {
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
  waiting.Ask(from, 0, {.rank = {.rank = 0, .size = 1}, .cache = here_.caches[0], .tables = to}, 0);
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
  WriteBlockRequest({.reader = {.rank = 0, .size = 1}, .blocks = {{0, 1, 2, 3, 4, 5, 6, 7}}},
                    bytes);
  for (int i = 0; i < 400; ++i) stopped->Send(bytes);
  BlockReader reader(service.card(), "it", kPatience);
  EXPECT_EQ(Read(reader).error, "");
}

}  // namespace
}  // namespace wideload::runtime
