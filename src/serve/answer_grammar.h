// The grammar of what a model may answer to a request: the content that response_format and its
// like ask for, or the calls of a forced tool_choice, as the model writes them. Any thread.
#pragma once

#include <memory>
#include <optional>

#include "grammar/token_grammar.h"
#include "serve/served_model.h"

namespace wideload::serve {

// Sets `made`, to null where the request asks for no form. `chat` is the conversation that is
// answered, null for a completion. A model that thinks may think first; where there are tools that
// it may call, calls are an answer, too. Returns why there is none.
std::optional<Refusal> AnswerGrammar(const ServedModel& model, const ApiRequest& request,
                                     const RenderedChat* chat,
                                     std::shared_ptr<grammar::TokenGrammar>& made);

}  // namespace wideload::serve
