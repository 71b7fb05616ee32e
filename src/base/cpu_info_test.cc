#include "base/cpu_info.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>

namespace wideload {
namespace {

// The words of /proc/cpuinfo's line of this name, of the first processor.
std::string ProcLine(const std::string& name) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(name)) return line.substr(line.find(':') + 1) + " ";
  }
  return "";
}

TEST(CpuInfo, AgreesWithTheOperatingSystem) {
  const std::string flags = ProcLine("flags");
  if (flags.empty()) GTEST_SKIP() << "no /proc/cpuinfo with flags here";
  const auto has = [&](const std::string& flag) {
    return flags.find(" " + flag + " ") != std::string::npos;
  };
  const CpuInfo& cpu = ThisCpu();
  EXPECT_EQ(" " + cpu.vendor + " ", ProcLine("vendor_id"));
  EXPECT_EQ(" " + cpu.brand + " ", ProcLine("model name"));
  EXPECT_EQ(" " + std::to_string(cpu.family) + " ", ProcLine("cpu family"));
  EXPECT_EQ(" " + std::to_string(cpu.model) + " ", ProcLine("model\t"));
  EXPECT_EQ(cpu.avx2, has("avx2") && has("fma") && has("f16c"));
  EXPECT_EQ(cpu.avx512,
            cpu.avx2 && has("avx512f") && has("avx512bw") && has("avx512dq") && has("avx512vl"));
  EXPECT_EQ(cpu.avx512_bf16, cpu.avx512 && has("avx512_bf16"));
  EXPECT_TRUE(has("amx_bf16") || !cpu.amx_bf16);
}

TEST(CpuInfo, SomeCpuIsAllowed) { EXPECT_GE(NumAllowedCpus(), 1); }

}  // namespace
}  // namespace wideload
