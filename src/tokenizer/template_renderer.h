// Runs a parsed chat template. One Render, one thread.
#pragma once

#include <string>

#include "tokenizer/template_program.h"
#include "tokenizer/template_value.h"

namespace wideload::tokenizer {

// What the template prints, given its `variables`. Errors: kInvalid and kResource as
// ChatTemplate::Render, with `source` and the line.
MarkedString RunTemplate(const TemplateProgram& program, TemplateMap variables,
                         const std::string& source);

}  // namespace wideload::tokenizer
