// The amx kernel set with tiles kept in memory, so that machines with AVX-512 alone can test it.
// Takes the place of the library's cpu/amx.cc in the program it is linked into.
#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace {

struct EmulatedTile {
  unsigned char rows[16][64];
};
thread_local EmulatedTile tiles[8];

void EmulateZero(int tile) { std::memset(&tiles[tile], 0, sizeof(EmulatedTile)); }

void EmulateLoad(int tile, const void* from, long stride) {
  for (long r = 0; r < 16; ++r) {
    std::memcpy(tiles[tile].rows[r], static_cast<const char*>(from) + r * stride, 64);
  }
}

void EmulateStore(int tile, void* to, long stride) {
  for (long r = 0; r < 16; ++r) {
    std::memcpy(static_cast<char*>(to) + r * stride, tiles[tile].rows[r], 64);
  }
}

float Bf16At(const EmulatedTile& tile, int row, int element) {
  uint16_t bits;
  std::memcpy(&bits, tile.rows[row] + 2 * element, sizeof(bits));
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return value;
}

// sums[m][n] += the sum over 16 pairs p of x[m][p] . w[p][n].
void EmulateMultiply(int sums, int x, int w) {
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 16; ++n) {
      float sum;
      std::memcpy(&sum, tiles[sums].rows[m] + 4 * n, sizeof(sum));
      for (int p = 0; p < 16; ++p) {
        for (int half = 0; half < 2; ++half) {
          const float product =
              Bf16At(tiles[x], m, 2 * p + half) * Bf16At(tiles[w], p, 2 * n + half);
          sum = sum + product;
        }
      }
      std::memcpy(tiles[sums].rows[m] + 4 * n, &sum, sizeof(sum));
    }
  }
}

}  // namespace

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#undef _tile_release
#define _tile_loadd(tile, from, stride) EmulateLoad(tile, from, stride)
#define _tile_stored(tile, to, stride) EmulateStore(tile, to, stride)
#define _tile_zero(tile) EmulateZero(tile)
#define _tile_dpbf16ps(sums, x, w) EmulateMultiply(sums, x, w)
#define _tile_release() static_cast<void>(0)
#define WIDELOAD_LOAD_TILE_CONFIG(config) static_cast<void>(config)

#include "compute/cpu/amx.cc"
