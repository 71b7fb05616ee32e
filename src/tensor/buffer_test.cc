#include "tensor/buffer.h"

#include <gtest/gtest.h>

#include <utility>

namespace wideload {
namespace {

std::span<std::byte> BytesOf(const Buffer& buffer) {
  return {buffer.data(), static_cast<size_t>(buffer.num_bytes())};
}

TEST(Buffer, OverMemoryOfAnotherIsAView) {
  Buffer owner(256);
  {
    Buffer view = Buffer::Over(BytesOf(owner).subspan(64, 100));
    EXPECT_EQ(view.data(), owner.data() + 64);
    EXPECT_EQ(view.num_bytes(), 100);
    view.data()[5] = std::byte{7};
    Buffer moved = std::move(view);
    Buffer assigned(16);
    assigned = std::move(moved);
    EXPECT_EQ(assigned.data(), owner.data() + 64);
  }
  EXPECT_EQ(owner.data()[69], std::byte{7});
}

TEST(Arena, GivesTheSamePiecesForTheSameCalls) {
  const int64_t sizes[] = {1, 64, 0, 65, 4096};
  int64_t sum = 0;
  for (const int64_t size : sizes) sum += Arena::PieceBytes(size);
  EXPECT_EQ(sum, 64 + 64 + 0 + 128 + 4096);
  Buffer block(sum);
  Arena writer(BytesOf(block));
  Arena reader(BytesOf(block));
  const std::byte* end = block.data();
  for (const int64_t size : sizes) {
    const Buffer written = writer.Take(size);
    const Buffer read = reader.Take(size);
    EXPECT_EQ(written.data(), read.data());
    EXPECT_EQ(written.num_bytes(), size);
    EXPECT_GE(written.data(), end);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(written.data()) % 64, 0);
    end = written.data() + size;
  }
}

TEST(ArenaDeathTest, DoesNotGiveMoreThanItsBlock) {
  Buffer block(128);
  Arena arena(BytesOf(block));
  arena.Take(65);
  EXPECT_DEATH(arena.Take(1), "a piece of 1 bytes after 128 of 128");
}

TEST(Workspace, AScopeGivesBackWhatWasTakenInIt) {
  Workspace workspace;
  const std::byte* const outer = workspace.Take<std::byte>(100).data();
  const std::byte* inner = nullptr;
  for (int layer = 0; layer < 50; ++layer) {
    const Workspace::Scope scope(workspace);
    const std::span<std::byte> piece = workspace.Take<std::byte>(1 << 20);
    if (layer == 0) inner = piece.data();
    EXPECT_EQ(piece.data(), inner);
    const Workspace::Scope nested(workspace);
    workspace.Take<std::byte>(1 << 20);
  }
  EXPECT_NE(workspace.Take<std::byte>(100).data(), outer);
  EXPECT_LT(workspace.capacity_bytes(), 8 << 20);
  workspace.Reset();
  const int64_t allocations = workspace.num_allocations();
  workspace.Take<std::byte>(100);
  {
    const Workspace::Scope scope(workspace);
    workspace.Take<std::byte>(2 << 20);
  }
  EXPECT_EQ(workspace.num_allocations(), allocations);
}

}  // namespace
}  // namespace wideload
