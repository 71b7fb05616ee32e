#include "engine_flags.h"

#include "option_flags.h"

namespace wideload::apps {

void AddEngineFlags(Command command, EngineFlags& flags) {
  for (const config::Group group :
       {config::Group::kModel, config::Group::kLayout, config::Group::kStatistics})
    AddOptions(command, group, flags);
}

}  // namespace wideload::apps
