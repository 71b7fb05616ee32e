// What the commands that use a chat template share.
#pragma once

#include <string>

#include "chat/chat_template.h"
#include "command_line.h"

namespace wideload::apps {

void AddChatTemplateFlag(Command command, std::string& file);

// The template of `file` where it is given, else that of the model in `folder`. Errors: as
// chat::ChatTemplate.
chat::ChatTemplate OpenChatTemplate(const std::string& folder, const std::string& file);

// The clock, in the machine's time zone: what strftime_now() of templates shows.
jinja::CivilTime LocalTime();

}  // namespace wideload::apps
