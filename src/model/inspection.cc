#include "model/inspection.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/config_reader.h"
#include "checkpoint/generation_config.h"
#include "model/transformer.h"

namespace wideload::model {
namespace {

// Runs `action`; what it throws becomes a reason. Returns whether it threw nothing.
template <class Action>
bool Try(Inspection& inspection, const Action& action) {
  try {
    action();
    return true;
  } catch (const Error& e) {
    inspection.reasons.emplace_back(e.what());
    return false;
  }
}

// The name, also where other fields of the file are wrong.
std::string ArchitectureOf(const std::string& text, const std::string& path) {
  const checkpoint::ConfigReader reader(text, path);
  const Json* names = reader.document().Find("architectures");
  const bool is_named =
      names != nullptr && names->is_array() && !names->empty() && (*names)[0].is_string();
  return is_named ? (*names)[0].get<std::string>() : "";
}

// Whether every tensor is there, in a shape and type that can be loaded.
void LookAtTensors(checkpoint::Checkpoint& weights, const ModelSpec& spec, Inspection& inspection) {
  WeightLoader loader(weights, {.mode = LoadMode::kMeasure});
  try {
    LoadTransformer(spec, loader);
  } catch (const Error&) {
    if (loader.faults().empty()) throw;
    for (std::string& line : loader.faults().Lines()) inspection.reasons.push_back(std::move(line));
  }
}

void LookAtConfig(const std::string& text, const std::string& path, Inspection& inspection,
                  std::optional<ModelReading>& reading) {
  inspection.architecture = ArchitectureOf(text, path);
  std::vector<std::string> faults;
  ModelReading found = ParseModel(text, path, faults);
  inspection.family = found.family;
  inspection.reasons = faults;
  inspection.reasons.insert(inspection.reasons.end(), found.unsupported.begin(),
                            found.unsupported.end());
  if (!faults.empty()) return;
  inspection.config = found.config;
  inspection.eos_ids = found.config.eos_ids;
  reading = std::move(found);
}

}  // namespace

Inspection InspectFolder(const std::string& folder) {
  Inspection inspection;
  std::string path;
  std::string text;
  std::optional<ModelReading> reading;
  if (!IsDirectory(folder)) checkpoint::ReadConfigText(folder, path);  // throws
  Try(inspection, [&] {
    text = checkpoint::ReadConfigText(folder, path);
    LookAtConfig(text, path, inspection, reading);
  });
  Try(inspection, [&] {
    for (const int64_t id : checkpoint::ReadGenerationConfig(folder).eos_ids)
      if (std::ranges::find(inspection.eos_ids, id) == inspection.eos_ids.end())
        inspection.eos_ids.push_back(id);
  });
  Try(inspection, [&] {
    checkpoint::Checkpoint weights(folder);
    inspection.weights =
        checkpoint::SumWeights(weights, inspection.config ? &*inspection.config : nullptr);
    if (reading && reading->unsupported.empty()) LookAtTensors(weights, reading->spec, inspection);
  });
  if (reading && inspection.reasons.empty())
    inspection.kv_bytes_per_token =
        static_cast<uint64_t>(KvBytesPerToken(reading->spec, DType::kBF16));
  return inspection;
}

}  // namespace wideload::model
