// The flag of commands whose texts are JSON of a schema.
#pragma once

#include <memory>
#include <string>

#include "command_line.h"
#include "grammar/token_grammar.h"
#include "tokenizer/tokenizer.h"

namespace wideload::apps {

// --json-schema.
void AddJsonSchemaFlag(Command command, std::string& file);

// What keeps texts within the schema in `file`; null for an empty name. Errors: as ReadFile;
// kInvalid or kUnsupported naming the file and the place in it.
std::shared_ptr<grammar::TokenGrammar> OpenJsonSchema(const std::string& file,
                                                      const tokenizer::Tokenizer& tokenizer,
                                                      int64_t vocab_size);

}  // namespace wideload::apps
