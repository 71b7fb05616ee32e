#include "base/cpu_info.h"

#include <cpuid.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstring>

namespace wideload {
namespace {

struct CpuidResult {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

CpuidResult Cpuid(uint32_t leaf, uint32_t subleaf = 0) {
  CpuidResult r;
  // Zeros when the processor has no such leaf.
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

bool Bit(uint32_t value, int bit) { return ((value >> bit) & 1U) != 0; }

// XCR0: which register states the operating system saves. Call only with OSXSAVE.
uint64_t ReadXcr0() {
  uint32_t low = 0;
  uint32_t high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

bool RequestTilePermission() {
  constexpr int kArchReqXcompPerm = 0x1023;
  constexpr int kXfeatureTileData = 18;
  return ::syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureTileData) == 0;
}

void AppendRegisters(std::string& text, std::initializer_list<uint32_t> registers) {
  for (const uint32_t r : registers) {
    std::array<char, 4> bytes{};
    std::memcpy(bytes.data(), &r, 4);
    text.append(bytes.data(), 4);
  }
}

std::string Brand() {
  std::string brand;
  for (uint32_t leaf = 0x80000002U; leaf <= 0x80000004U; ++leaf) {
    const CpuidResult r = Cpuid(leaf);
    AppendRegisters(brand, {r.eax, r.ebx, r.ecx, r.edx});
  }
  brand.resize(std::strlen(brand.c_str()));
  while (!brand.empty() && brand.back() == ' ') brand.pop_back();
  return brand;
}

CpuInfo Detect() {
  CpuInfo info;
  const CpuidResult vendor = Cpuid(0);
  AppendRegisters(info.vendor, {vendor.ebx, vendor.edx, vendor.ecx});
  info.brand = Brand();
  const CpuidResult one = Cpuid(1);
  const uint32_t family = (one.eax >> 8) & 0xfU;
  info.family = static_cast<int>(family == 0xf ? family + ((one.eax >> 20) & 0xffU) : family);
  info.model = static_cast<int>(((one.eax >> 4) & 0xfU) | ((one.eax >> 12) & 0xf0U));

  const bool has_osxsave = Bit(one.ecx, 27);
  const uint64_t saved = has_osxsave ? ReadXcr0() : 0;
  const auto saves = [saved](uint64_t mask) { return (saved & mask) == mask; };
  constexpr uint64_t kYmm = 0x6;        // SSE and AVX state
  constexpr uint64_t kZmm = 0xe6;       // and opmask, upper halves, upper registers
  constexpr uint64_t kTiles = 0x60000;  // TILECFG and TILEDATA
  const CpuidResult seven = Cpuid(7);
  const CpuidResult seven_one = Cpuid(7, 1);
  const bool fma_f16c = Bit(one.ecx, 12) && Bit(one.ecx, 29);
  info.avx2 = saves(kYmm) && Bit(one.ecx, 28) && fma_f16c && Bit(seven.ebx, 5);
  const bool f_dq_bw_vl =
      Bit(seven.ebx, 16) && Bit(seven.ebx, 17) && Bit(seven.ebx, 30) && Bit(seven.ebx, 31);
  info.avx512 = info.avx2 && saves(kZmm) && f_dq_bw_vl;
  info.avx512_bf16 = info.avx512 && Bit(seven_one.eax, 5);
  const bool tile_bf16 = Bit(seven.edx, 22) && Bit(seven.edx, 24);
  info.amx_bf16 = info.avx512 && tile_bf16 && saves(kTiles) && RequestTilePermission();
  return info;
}

}  // namespace

const CpuInfo& ThisCpu() {
  static const CpuInfo info = Detect();
  return info;
}

int NumAllowedCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
  return 1;
}

}  // namespace wideload
