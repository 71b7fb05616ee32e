#include "checkpoint/config_reader.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <utility>

namespace wideload::checkpoint {
namespace {

// A key, what it switches on, and the JSON values (besides null) with which it changes nothing.
struct Switch {
  std::string_view name;
  std::string_view what;
  std::string_view harmless;  // "," separated JSON texts; numbers are compared as numbers
};

constexpr std::array<Switch, 37> kSwitches = {{
    {"attention_bias", "biases in the attention projections", "false"},
    {"qkv_bias", "biases in the query, key and value projections", "false"},
    {"use_qkv_bias", "biases in the query, key and value projections", "false"},
    {"mlp_bias", "biases in the MLPs", "false"},
    {"use_bias", "biases", "false"},
    {"kv_lora_rank", "multi-head latent attention", "0"},
    {"q_lora_rank", "multi-head latent attention", "0"},
    {"use_qk_norm", "normed queries and keys", "false"},
    {"n_shared_experts", "shared experts", "0"},
    {"num_shared_experts", "shared experts", "0"},
    {"shared_expert_intermediate_size", "a shared expert", "0"},
    {"n_group", "routing within groups of experts", "0,1"},
    {"topk_group", "routing within groups of experts", "0,1"},
    {"topk_method", "a way to choose experts", "\"greedy\""},
    {"scoring_func", "a router score other than softmax", "\"softmax\""},
    {"moe_router_use_sigmoid", "a sigmoid router", "false"},
    {"norm_topk_prob", "normed expert weights", "false"},
    {"routed_scaling_factor", "scaled expert outputs", "1"},
    {"rope_interleave", "interleaved rotary pairs", "false"},
    {"no_rope_layers", "layers without rotary embedding", "[]"},
    {"attention_chunk_size", "chunked attention", "0"},
    {"attn_temperature_tuning", "attention temperature", "false,0"},
    {"use_sliding_window", "sliding-window attention", "false"},
    {"clip_qkv", "clipped queries, keys and values", ""},
    {"swiglu_limit", "a clamped SwiGLU", ""},
    {"attn_logit_softcapping", "capped attention scores", ""},
    {"final_logit_softcapping", "capped logits", ""},
    {"logit_scale", "scaled logits", "1"},
    {"logits_scaling", "scaled logits", "1"},
    {"embedding_multiplier", "scaled embeddings", "1"},
    {"residual_multiplier", "scaled residuals", "1"},
    {"attention_multiplier", "scaled attention scores", ""},
    {"use_mla", "multi-head latent attention", "false"},
    {"index_topk", "sparse attention", "0"},
    {"linear_num_value_heads", "linear attention", "0"},
    {"full_attention_interval", "linear attention", "1"},
    {"is_encoder_decoder", "an encoder", "false"},
}};

bool IsHarmless(const Json& value, std::string_view harmless) {
  const Json list = Json::parse("[" + std::string(harmless) + "]");
  for (const Json& item : list)
    if (value == item) return true;
  return false;
}

// Python's Infinity, -Infinity and NaN outside of strings become strings, so that the rest of the
// file can be read and a field that holds one is refused by name.
std::string QuoteNonFinite(std::string_view text) {
  std::string quoted;
  bool in_string = false;
  for (size_t i = 0; i < text.size();) {
    const std::string_view rest = text.substr(i);
    std::string_view piece = rest.substr(0, in_string && rest[0] == '\\' ? 2 : 1);
    for (const std::string_view word : {"-Infinity", "Infinity", "NaN"})
      if (!in_string && rest.starts_with(word)) piece = word;
    if (piece == "\"") in_string = !in_string;
    const bool is_word = !in_string && piece.size() > 1;
    quoted += is_word ? fmt::format("\"{}\"", piece) : std::string(piece);
    i += piece.size();
  }
  return quoted;
}

}  // namespace

ConfigReader::ConfigReader(std::string_view text, const std::string& source)
    : json_(ParseJson(QuoteNonFinite(text), source)), source_(source) {
  document();  // refuses what is no object
}

JsonFields ConfigReader::fields() const {
  return is_nested() ? document().Object("text_config") : document();
}

const Json* ConfigReader::Find(std::string_view name) {
  read_.emplace(name);
  return fields().Find(name);
}

bool ConfigReader::Has(std::string_view name) { return Find(name) != nullptr; }

void ConfigReader::AddFault(const Error& error) {
  if (faults_.empty()) fault_kind_ = error.kind();
  // A key that is read twice is wrong once.
  if (std::ranges::find(faults_, error.what()) == faults_.end()) faults_.emplace_back(error.what());
}

bool ConfigReader::IsFaulty(std::initializer_list<std::string_view> names) const {
  return std::ranges::any_of(names, [&](std::string_view name) { return faulty_.contains(name); });
}

void ConfigReader::ThrowFaults() const {
  if (!faults_.empty()) throw Error(fault_kind_, fmt::format("{}", fmt::join(faults_, "; ")));
}

template <class Value, class Read>
Value ConfigReader::Getting(std::string_view name, const Value& instead, const Read& read) {
  read_.emplace(name);
  try {
    return read(fields());
  } catch (const Error& error) {
    AddFault(error);
    faulty_.emplace(name);
    return instead;
  }
}

int64_t ConfigReader::Int(std::string_view name, int64_t min, int64_t max) {
  return Getting(name, min, [&](const JsonFields& from) { return from.Int(name, min, max); });
}

int64_t ConfigReader::IntOr(std::string_view name, int64_t fallback, int64_t min, int64_t max) {
  return Getting(name, fallback,
                 [&](const JsonFields& from) { return from.IntOr(name, fallback, min, max); });
}

double ConfigReader::Number(std::string_view name, double min, double max) {
  return Getting(name, min, [&](const JsonFields& from) { return from.Number(name, min, max); });
}

double ConfigReader::NumberOr(std::string_view name, double fallback, double min, double max) {
  return Getting(name, fallback,
                 [&](const JsonFields& from) { return from.NumberOr(name, fallback, min, max); });
}

bool ConfigReader::BoolOr(std::string_view name, bool fallback) {
  return Getting(name, fallback,
                 [&](const JsonFields& from) { return from.BoolOr(name, fallback); });
}

std::string ConfigReader::StringOr(std::string_view name, std::string fallback) {
  return Getting(name, fallback,
                 [&](const JsonFields& from) { return from.StringOr(name, fallback); });
}

void ConfigReader::Expect(std::string_view name, const Json& fallback, const Json& only) {
  const Json* found = Find(name);
  const Json& value = found != nullptr ? *found : fallback;
  if (value == only) return;
  Unsupported(fmt::format("{} is {}; implemented is {}", fields().Where(name),
                          DumpJson(value).substr(0, 60), DumpJson(only)));
}

void ConfigReader::RefuseUnread() {
  const JsonFields model = fields();
  for (const Switch& key : kSwitches) {
    const Json* value = model.Find(key.name);
    if (value == nullptr || read_.contains(key.name) || IsHarmless(*value, key.harmless)) continue;
    Unsupported(fmt::format("{} is {}; {} {} not implemented", model.Where(key.name),
                            DumpJson(*value).substr(0, 60), key.what,
                            key.what.ends_with('s') ? "are" : "is"));
  }
}

}  // namespace wideload::checkpoint
