// The body of /v1/responses as a conversation of /v1/chat/completions: items become messages, and
// tools take the shape that templates know. Pure.
#pragma once

#include <string>
#include <vector>

#include "jinja/value.h"

namespace wideload::serve {

// Messages and tools of a chat.
struct Conversation {
  std::vector<jinja::Value> messages;
  jinja::Value tools{jinja::None{}};
};

// Reads instructions, input and tools of the body. Returns what is wrong, after the name of the
// field; "": nothing. Contents are left for whoever reads messages of chats.
std::string ReadResponsesInput(const jinja::Dict& body, Conversation& conversation,
                               std::string& field);

}  // namespace wideload::serve
