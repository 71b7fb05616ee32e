#include "engine_flags.h"

#include "base/error.h"
#include "option_flags.h"

namespace wideload::apps {

void AddEngineFlags(Command command, EngineFlags& flags) {
  for (const config::Group group :
       {config::Group::kModel, config::Group::kLayout, config::Group::kStatistics})
    AddOptions(command, group, flags);
}

void AddBackendFlag(Command command) {
  const auto take = [](const std::string& name, const std::string& text) {
    if (text != "pytorch")
      Throw(ErrorKind::kInvalid, "{} is {}; allowed: pytorch (there is one engine)", name, text);
  };
  command.AddParsed({.names = "--backend",
                     .help = "pytorch, as command lines of TensorRT-LLM have it: nothing is asked "
                             "for, there is one engine",
                     .kind = "TEXT",
                     .parse = take,
                     .value_text = {}});
}

void TakeModelFolder(const std::string& folder, std::string_view place, EngineFlags& flags) {
  if (folder.empty()) return;
  if (!flags.model.empty())
    Throw(ErrorKind::kInvalid, "the model is {} by --model and {} by {}; give one of the two",
          flags.model, folder, place);
  flags.model = folder;
}

}  // namespace wideload::apps
