// The model that is served, as requests need to know it. Does not change while serving; any thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "chat/chat_template.h"
#include "checkpoint/generation_config.h"
#include "checkpoint/memory_plan.h"
#include "grammar/grammar_cache.h"
#include "runtime/engine_loop.h"
#include "serve/api_request.h"
#include "serve/message_reader.h"
#include "tokenizer/tokenizer.h"

namespace wideload::serve {

struct ServedModel {
  std::string name;  // under which clients ask for it
  std::string root;  // its folder
  int64_t vocab_size = 0;
  runtime::EngineOptions engine;
  const tokenizer::Tokenizer* tokenizer = nullptr;
  std::shared_ptr<grammar::GrammarCache> grammars;    // of its vocabulary
  const chat::ChatTemplate* chat_template = nullptr;  // null: it has none that can be used
  chat::Variables template_variables;                 // special tokens
  checkpoint::GenerationConfig generation;            // what requests do not say
  std::vector<int32_t> eos_ids;
  std::vector<checkpoint::MemoryPart> memory;  // that the start planned for, on this host
  int64_t expert_bytes = 0;                    // of the largest expert
  int64_t max_text_bytes = 0;                  // of a text that may fit the context
  std::function<jinja::CivilTime()> now = {};  // for templates

  int64_t max_len() const { return engine.max_seq_len; }
};

// The ids of a prompt. Errors: as Tokenizer::Encode. Returns why a text is not encoded.
std::optional<Refusal> EncodePrompt(const ServedModel& model, const ApiRequest& request,
                                    const Prompt& prompt, std::vector<int32_t>& ids);

// The conversation through the model's template: its text, and the ids. Errors: as
// ChatTemplate::Render. Returns why there is none.
struct RenderedChat {
  std::string text;
  std::vector<int32_t> ids;
  MessageForm form;  // of the model's answer
};
std::optional<Refusal> RenderChat(const ServedModel& model, const ApiRequest& request,
                                  RenderedChat& rendered);

// A job without its sink for each choice of each prompt; choice i of prompt p is job p * n + i.
// `seed` is taken where the request says none. Errors: what tokenizer and template throw. Returns
// why there are none.
struct Jobs {
  std::vector<runtime::Job> jobs;
  MessageForm form;  // RenderedChat
};
std::optional<Refusal> MakeJobs(const ServedModel& model, Operation operation,
                                const ApiRequest& request, uint64_t seed, Jobs& made);

}  // namespace wideload::serve
