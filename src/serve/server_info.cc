#include "serve/server_info.h"

#include <charconv>

#include "base/json.h"

namespace wideload::serve {

Json ModelJson(const ServedModel& model, int64_t created) {
  return {{"id", model.name},       {"object", "model"},  {"created", created},
          {"owned_by", "wideload"}, {"root", model.root}, {"max_model_len", model.max_len()}};
}

std::string TokenizerInfoJson(const ServedModel& model) {
  Json info = {{"tokenizer_class", "PreTrainedTokenizerFast"},
               {"vocab_size", model.tokenizer->NumIds()},
               {"model_max_length", model.max_len()},
               {"bos_token", nullptr},
               {"eos_token", nullptr},
               {"chat_template", nullptr}};
  for (const auto& [name, value] : model.template_variables)
    if (const jinja::MarkedText* text = value.Str()) info[name] = std::string(text->text());
  if (info["eos_token"].is_null() && !model.eos_ids.empty())
    info["eos_token"] = std::string(model.tokenizer->TokenText(model.eos_ids.front()));
  if (model.chat_template != nullptr) info["chat_template"] = model.chat_template->text(false);
  return DumpJson(info);
}

std::string ServerInfoJson(const ServedModel& model, const std::string& version,
                           const ServerLimits& limits) {
  const runtime::EngineOptions& engine = model.engine;
  const parallel::Layout& layout = engine.layout;
  return DumpJson({{"version", version},
                   {"model",
                    {{"id", model.name},
                     {"root", model.root},
                     {"max_model_len", model.max_len()},
                     {"vocab_size", model.vocab_size}}},
                   {"layout",
                    {{"ranks", layout.world()},
                     {"tp", layout.tp},
                     {"pp", layout.pp},
                     {"cp", layout.cp},
                     {"dp", layout.dp},
                     {"moe_tp", layout.moe_tp},
                     {"moe_ep", layout.moe_ep},
                     {"threads_per_rank", engine.threads_per_rank}}},
                   {"engine",
                    {{"max_batch_size", engine.max_batch_size},
                     {"max_num_tokens", engine.max_num_tokens},
                     {"kv_tokens", engine.KvTokens()},
                     {"enable_prefix_caching", engine.prefix_cache}}},
                   {"limits",
                    {{"max_open_requests", limits.max_open_requests},
                     {"max_open_tokens", limits.max_open_tokens},
                     {"request_timeout", limits.request_timeout_s}}}});
}

std::string DecodedName(std::string_view part) {
  std::string name;
  for (size_t i = 0; i < part.size(); ++i) {
    uint8_t byte = 0;
    const char* const digits = part.data() + i + 1;
    const bool is_coded = part[i] == '%' && part.size() - i > 2 &&
                          std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2;
    name += is_coded ? static_cast<char>(byte) : part[i];
    if (is_coded) i += 2;
  }
  return name;
}

}  // namespace wideload::serve
