// Any bytes as config.json and as generation_config.json: read or refused, and what is read makes
// rotary frequencies.
#include <cstdint>

#include "base/error.h"
#include "checkpoint/config_reader.h"
#include "checkpoint/generation_config.h"
#include "checkpoint/model_config.h"
#include "checkpoint/rope_table.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideload;
  using namespace wideload::checkpoint;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    ConfigReader reader(text, "config.json");
    const ModelConfig config = ReadModelConfig(reader);
    reader.ThrowFaults();
    const int64_t num_moe_layers = config.NumMoeLayers();
    WIDELOAD_CHECK(num_moe_layers == 0 || config.top_k <= config.num_experts, "top_k {}",
                   config.top_k);
    for (const float frequency : RopeFrequencies(config.rope, config.head_dim))
      WIDELOAD_CHECK(frequency == frequency, "a frequency is NaN");
  } catch (const Error&) {
    // a refusal is an answer
  }
  try {
    ParseGenerationConfig(text, "generation_config.json");
  } catch (const Error&) {
    // a refusal is an answer
  }
  return 0;
}
