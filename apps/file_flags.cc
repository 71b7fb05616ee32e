#include "file_flags.h"

#include <cstdlib>
#include <utility>

#include "embedded_model.h"

namespace wideload::apps {

FileUse Reads(std::string flag, std::string path) {
  return {std::move(flag), std::move(path), FileUse::Kind::kInput};
}

FileUse Writes(std::string flag, std::string path) {
  return {std::move(flag), std::move(path), FileUse::Kind::kOutput};
}

FileUse WritesFolder(std::string flag, std::string path) {
  return {std::move(flag), std::move(path), FileUse::Kind::kOutputFolder};
}

void CheckFiles(const std::vector<FileUse>& uses) { RefuseSharedFiles(uses); }

void CheckFiles(const config::EngineFlags& engine, std::vector<FileUse> uses) {
  uses.push_back(Reads("--model", engine.model.empty() ? EmbeddedModelFolder() : engine.model));
  uses.push_back(Reads("--placement", engine.placement));
  uses.push_back(Reads("--config", engine.config_file));
  const char* const variable = std::getenv("EXPERT_STATISTIC_PATH");
  if (!engine.statistic_path.empty())
    uses.push_back(WritesFolder("--expert-statistic-path", engine.statistic_path));
  else if (variable != nullptr)
    uses.push_back(WritesFolder("EXPERT_STATISTIC_PATH", variable));
  uses.push_back(Writes("--trace", engine.trace));
  uses.push_back(Writes("--weight-file", engine.weight_file));
  RefuseSharedFiles(uses);
}

}  // namespace wideload::apps
