#include "runtime/start/device_limits.h"

#include <string_view>

#include "base/error.h"

namespace wideload::runtime {
namespace {

// "--tp is 2; with --device cuda 1 is allowed"
template <class Value>
void RefuseOption(std::string_view device, std::string_view option, const Value& value,
                  std::string_view allowed) {
  Throw(ErrorKind::kUnsupported, "{} is {}; with --device {} {} is allowed", option, value, device,
        allowed);
}

void RefuseLayout(std::string_view device, const EngineOptions& options) {
  const parallel::Layout& layout = options.layout;
  const auto refuse = [&](std::string_view option, int32_t size) {
    if (size > 1) RefuseOption(device, option, size, "1");
  };
  refuse("--tp", layout.tp);
  refuse("--cp", layout.cp);
  refuse("--pp", layout.pp);
  refuse("--moe-tp", layout.moe_tp);
  if (options.moe_mode != moe::MoeMode::kBarrier)
    RefuseOption(device, "--moe-mode", "microbatch", "barrier");
}

// "auto" is the kernel set of the device.
void RefuseKernels(const config::EngineFlags& flags) {
  if (flags.kernels != "auto") RefuseOption(flags.device, "--kernels", flags.kernels, "auto");
}

// Where weights and slots are.
void RefusePlaces(const config::EngineFlags& flags, const EngineOptions& options) {
  if (options.slot_storage != moe::SlotStorage::kView)
    RefuseOption(flags.device, "--slot-storage", flags.slot_storage, "view");
  if (options.verify_slots) RefuseOption(flags.device, "--verify-slots", "on", "off");
  if (!flags.weight_file.empty())
    RefuseOption(flags.device, "--weight-file", flags.weight_file, "none");
  if (!flags.weight_store.empty())
    RefuseOption(flags.device, "--weight-store", flags.weight_store, "none");
  if (flags.weight_huge_pages) RefuseOption(flags.device, "--weight-huge-pages", "on", "off");
  if (flags.weight_numa != "off")
    RefuseOption(flags.device, "--weight-numa", flags.weight_numa, "off");
}

}  // namespace

void RefuseOnDevice(const config::EngineFlags& flags, const checkpoint::ModelConfig& config,
                    const model::ModelSpec& spec, const EngineOptions& options) {
  constexpr std::string_view kArchitecture = "Qwen3MoeForCausalLM";
  constexpr int64_t kMaxHeadDim = 256;
  if (config.architecture != kArchitecture)
    Throw(ErrorKind::kUnsupported, "the model is a {}; with --device {} {} is allowed",
          config.architecture, flags.device, kArchitecture);
  if (!config.quantization.empty())
    Throw(ErrorKind::kUnsupported,
          "the weights are quantised ({}); with --device {} plain ones are allowed",
          config.quantization, flags.device);
  for (const model::LayerSpec& layer : spec.layers) {
    const auto& attention = std::get<model::GqaSpec>(layer.attention);
    if (attention.head_dim > kMaxHeadDim)
      Throw(ErrorKind::kUnsupported,
            "the model has a head_dim of {}; with --device {} up to {} is "
            "allowed",
            attention.head_dim, flags.device, kMaxHeadDim);
    if (attention.window > 0)
      Throw(ErrorKind::kUnsupported,
            "the model has sliding windows; with --device {} attention over all positions is "
            "allowed",
            flags.device);
  }
  RefuseLayout(flags.device, options);
  RefuseKernels(flags);
  RefusePlaces(flags, options);
}

}  // namespace wideload::runtime
