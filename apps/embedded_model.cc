#include "embedded_model.h"

#include <filesystem>
#include <system_error>

#include "base/error.h"
#include "base/file.h"

namespace wideload::apps {
namespace {

constexpr char kName[] = "wideload-14m";

std::filesystem::path ProgramFolder() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
}

}  // namespace

std::string EmbeddedModelFolder() {
  const std::filesystem::path installed =
      (ProgramFolder() / "../share/wideload/models" / kName).lexically_normal();
  const std::filesystem::path built = std::filesystem::path(WIDELOAD_MODELS_DIR) / kName;
  for (const auto& folder : {installed, built})
    if (FileExists((folder / "tokenizer.json").string())) return folder.string();
  Throw(ErrorKind::kNotFound,
        "the embedded model is in neither {} nor {}; name a model folder with --model",
        installed.string(), built.string());
}

}  // namespace wideload::apps
