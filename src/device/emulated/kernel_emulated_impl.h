// kernel.h for a processor: each thread of a block is a fiber, blocks and threads run in an order
// that differs from launch to launch, and what a GPU leaves undefined is found: threads of a warp
// or block that do not meet, shared memory that nobody has written (it is NaN), copies whose end
// was not waited for (they are made no sooner), work whose end the host did not wait for (it is
// done no sooner, emulated_device.h), loads and stores of several words that are not aligned. Sums
// of MultiplyMatrices are rounded once for 16 products, as tensor cores come near to: results are
// those of a GPU but for the last bits.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

#define WIDELOAD_DEVICE inline
#define WIDELOAD_HOST_DEVICE inline
#define WIDELOAD_UNROLL
#define WIDELOAD_UNROLL_BY(count)

namespace wideload::device {

namespace emulated {

// Where the running fiber is.
struct Place {
  int thread = 0;
  int num_threads = 0;
  int64_t block = 0;
  int64_t num_blocks = 0;
  int64_t block_y = 0;
  std::byte* shared = nullptr;
};
const Place& Here();

// Waits until all threads of the block that have not ended are here.
void MeetBlock();
// Waits until all lanes of the warp are here, each with num_bytes (at most 64); returns those of
// lane 0, behind which are those of the others at a distance of 64. Valid until the next call.
const std::byte* MeetWarp(const void* mine, size_t num_bytes);

// A copy that is made when the thread waits for its group.
void CopyLater(void* shared, const void* global, int num_bytes);
void CommitLater();
// Makes the copies of all groups but the last `pending`.
void MakeCopies(int pending);

// Ends the process unless the address is a multiple of `alignment`.
void CheckAlignment(const void* address, size_t alignment);

// Runs body for every thread of every block when the stream comes to it.
void Enqueue(Stream& stream, const Grid& grid, int max_threads, std::function<void()> body);

}  // namespace emulated

inline int Thread() { return emulated::Here().thread; }
inline int NumThreads() { return emulated::Here().num_threads; }
inline int Lane() { return Thread() % kWarp; }
inline int Warp() { return Thread() / kWarp; }
inline int64_t Block() { return emulated::Here().block; }
inline int64_t NumBlocks() { return emulated::Here().num_blocks; }
inline int64_t BlockY() { return emulated::Here().block_y; }
inline std::byte* SharedMemory() { return emulated::Here().shared; }

template <class T>
T Load(const void* address) {
  emulated::CheckAlignment(address, alignof(T));
  return *static_cast<const T*>(address);
}
template <class T>
void Store(void* address, const T& value) {
  emulated::CheckAlignment(address, alignof(T));
  *static_cast<T*>(address) = value;
}

inline void SyncBlock() { emulated::MeetBlock(); }
inline void SyncWarp() { emulated::MeetWarp(nullptr, 0); }
template <class T>
T Shuffle(T value, int lane) {
  T other;
  std::memcpy(&other, emulated::MeetWarp(&value, sizeof(T)) + lane % kWarp * int64_t{64},
              sizeof(T));
  return other;
}
template <class T>
T ShuffleXor(T value, int mask) {
  return Shuffle(value, Lane() ^ mask);
}
inline uint32_t Ballot(bool is_set) {
  const std::byte* all = emulated::MeetWarp(&is_set, 1);
  uint32_t bits = 0;
  for (int lane = 0; lane < kWarp; ++lane)
    if (all[lane * int64_t{64}] != std::byte{0}) bits |= 1U << lane;
  return bits;
}
inline int NumBits(uint32_t bits) { return std::popcount(bits); }

// One fiber runs at a time.
inline int32_t AtomicAdd(int32_t* to, int32_t value) {
  const int32_t before = *to;
  *to += value;
  return before;
}
inline void FenceDevice() {}

inline float FloatOfBits(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t BitsOfFloat(float value) { return std::bit_cast<uint32_t>(value); }
inline float MultiplyAdd(float a, float b, float c) { return std::fma(a, b, c); }
inline float Divide(float a, float b) { return a / b; }
inline float SquareRoot(float a) { return std::sqrt(a); }
inline float Largest(float a, float b) { return std::fmax(a, b); }
inline float Exp2(float a) { return std::exp2(a); }

inline void CopyAsync16(void* shared, const void* global, int num_bytes) {
  emulated::CopyLater(shared, global, num_bytes);
}
inline void CommitCopies() { emulated::CommitLater(); }
template <int kPending>
void WaitCopies() {
  emulated::MakeCopies(kPending);
}

namespace emulated {

// Matrix m of ldmatrix has the rows that lanes 8 m to 8 m + 7 name; lane l gets elements 2 (l % 4)
// and the next of row l / 4, transposed: of column l / 4.
template <int kMatrices, bool kTransposed>
void LoadMatrices(uint32_t (&fragments)[kMatrices], const void* shared_row) {
  struct Row {
    uint16_t values[8];
  };
  Row mine = {};
  if (Lane() < 8 * kMatrices) std::memcpy(&mine, shared_row, sizeof(mine));
  const std::byte* all = MeetWarp(&mine, sizeof(mine));
  for (int m = 0; m < kMatrices; ++m) {
    const auto value = [&](int row, int column) {
      Row of;
      std::memcpy(&of, all + (8 * m + row) * int64_t{64}, sizeof(of));
      return static_cast<uint32_t>(of.values[column]);
    };
    const int a = Lane() / 4;
    const int b = Lane() % 4 * 2;
    fragments[m] =
        kTransposed ? value(b, a) | value(b + 1, a) << 16 : value(a, b) | value(a, b + 1) << 16;
  }
}

}  // namespace emulated

inline void LoadMatrices4(uint32_t (&fragments)[4], const void* shared_row) {
  emulated::LoadMatrices<4, false>(fragments, shared_row);
}
inline void LoadMatrices2(uint32_t (&fragments)[2], const void* shared_row) {
  emulated::LoadMatrices<2, false>(fragments, shared_row);
}
inline void LoadMatrices2Transposed(uint32_t (&fragments)[2], const void* shared_row) {
  emulated::LoadMatrices<2, true>(fragments, shared_row);
}
inline void LoadMatrices4Transposed(uint32_t (&fragments)[4], const void* shared_row) {
  emulated::LoadMatrices<4, true>(fragments, shared_row);
}

// Lane l: a has rows l / 4 and + 8 at columns 2 (l % 4), + 1 and these + 8 (a[0]: row, a[1]: row +
// 8, a[2]: row at columns + 8, a[3]: row + 8 at columns + 8), b column l / 4 at the same k, sums
// rows l / 4 and + 8 at columns 2 (l % 4) and + 1.
inline void MultiplyMatrices(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  struct Fragments {
    uint32_t a[4];
    uint32_t b[2];
  };
  Fragments mine;
  std::memcpy(mine.a, a, sizeof(a));
  std::memcpy(mine.b, b, sizeof(b));
  const std::byte* all = emulated::MeetWarp(&mine, sizeof(mine));
  const auto half = [&](int lane, int word, int k) {
    uint32_t pair;
    std::memcpy(&pair, all + int64_t{64} * lane + int64_t{sizeof(pair)} * word, sizeof(pair));
    return static_cast<double>(FloatOfBits(k % 2 == 0 ? pair << 16 : pair & 0xffff0000U));
  };
  constexpr int kFirstOfB = 4;
  for (int i = 0; i < 4; ++i) {
    const int row = Lane() / 4 + (i >= 2 ? 8 : 0);
    const int column = Lane() % 4 * 2 + i % 2;
    auto sum = static_cast<double>(sums[i]);
    for (int k = 0; k < 16; ++k)
      sum += half(row % 8 * 4 + k % 8 / 2, row / 8 + k / 8 * 2, k) *
             half(column * 4 + k % 8 / 2, kFirstOfB + k / 8, k);
    sums[i] = static_cast<float>(sum);
  }
}

// Starts a kernel.
template <class Kernel>
void Launch(Stream& stream, const Grid& grid, const typename Kernel::Args& args) {
  static_assert(std::is_trivially_copyable_v<typename Kernel::Args>);
  emulated::Enqueue(stream, grid, Kernel::kThreads, [args] { Kernel::Run(args); });
  stream.AfterLaunch();
}

}  // namespace wideload::device
