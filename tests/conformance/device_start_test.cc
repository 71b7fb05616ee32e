// A start with --device cuda, where that is the emulated device.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "compute/cuda/kernels.h"
#include "device/emulated/emulated_device.h"
#include "runtime/start/session.h"
#include "support/test_data.h"
#include "support/test_engine.h"

namespace wideload::testing_support {
namespace {

runtime::Session StartOnDevice(const config::EngineFlags& flags, const std::string& folder) {
  return runtime::StartSession(
      nullptr, flags,
      {.find_folder = [&] { return SourcePath(folder); },
       .version = "0",
       .open_devices =
           [](std::string_view) {
             runtime::RunDevices found{.kernels = compute::cuda::EmulatedMmaKernels()};
             found.devices.push_back(device::MakeEmulatedDevice());
             return found;
           }});
}

config::EngineFlags DeviceFlags() {
  config::EngineFlags flags;
  flags.device = "cuda";
  flags.ep = 2;
  flags.threads = 1;
  flags.max_seq_len = 64;
  return flags;
}

constexpr char kTinyModel[] = "testdata/models/tiny-qwen3-moe";

TEST(DeviceStart, OptionsBecomeRanksOnTheDeviceThatGenerate) {
  runtime::Session session = StartOnDevice(DeviceFlags(), kTinyModel);
  EXPECT_EQ(session.kernels, compute::KernelSet::kCudaMma);
  EXPECT_EQ(session.engine->options().num_ranks(), 2);
  const std::vector<Outcome> outcomes =
      RunRequests(*session.engine, {{.prompt = {1, 2, 3}, .max_tokens = 3}});
  EXPECT_EQ(outcomes[0].tokens.size(), 3U);
}

TEST(DeviceStart, WhatIsNotThereYetIsRefusedByName) {
  using testing::HasSubstr;
  const auto refusal = [](const config::EngineFlags& flags, const std::string& folder) {
    try {
      StartOnDevice(flags, folder);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("started");
  };
  struct RefusedFlags {
    const char* text;
    void (*change)(config::EngineFlags&);
  };
  const RefusedFlags cases[] = {
      {"--tp is 2; with --device cuda 1 is allowed",
       [](auto& f) {
         f.tp = 2;
         f.ep = 0;
       }},
      {"--slot-storage is copy; with --device cuda view is",
       [](auto& f) { f.slot_storage = "copy"; }},
      {"--moe-mode is microbatch; with --device cuda barrier",
       [](auto& f) { f.moe_mode = "microbatch"; }},
      {"--verify-slots is on; with --device cuda off", [](auto& f) { f.verify_slots = true; }},
      {"--weight-file is x; with --device cuda none", [](auto& f) { f.weight_file = "x"; }},
      {"--weight-numa is local; with --device cuda off", [](auto& f) { f.weight_numa = "local"; }},
      {"--kernels is avx2; with --device cuda auto", [](auto& f) { f.kernels = "avx2"; }}};
  for (const RefusedFlags& refused : cases) {
    config::EngineFlags flags = DeviceFlags();
    refused.change(flags);
    EXPECT_THAT(refusal(flags, kTinyModel), HasSubstr(refused.text));
  }
  EXPECT_THAT(refusal(DeviceFlags(), "testdata/models/tiny-mixtral"),
              HasSubstr("the model is a MixtralForCausalLM; with --device cuda "
                        "Qwen3MoeForCausalLM is allowed"));
}

TEST(DeviceStart, MoreMemoryThanTheDeviceHasIsRefused) {
  config::EngineFlags flags = DeviceFlags();
  flags.kv_cache_memory = "3G";
  EXPECT_THROW(StartOnDevice(flags, kTinyModel), Error);
}

}  // namespace
}  // namespace wideload::testing_support
