// `wideload inspect`: what a model folder holds, and why it cannot be run if it cannot.
#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "commands.h"
#include "embedded_model.h"
#include "model/inspection.h"
#include "tokenizer/tokenizer.h"

namespace wideload::apps {
namespace {

using checkpoint::ModelConfig;
using checkpoint::WeightSums;
using model::Inspection;

std::string FamilyName(const Inspection& inspection) {
  return inspection.family.empty() ? "not implemented" : inspection.family;
}

Json RopeJson(const checkpoint::RopeConfig& rope) {
  Json json = {{"theta", rope.theta}, {"type", checkpoint::RopeTypeName(rope.type)}};
  if (rope.type != checkpoint::RopeType::kDefault) json["factor"] = rope.factor;
  if (rope.rotary_fraction != 1.0) json["rotary_fraction"] = rope.rotary_fraction;
  if (rope.type == checkpoint::RopeType::kYarn || rope.type == checkpoint::RopeType::kLlama3)
    json["original_max_positions"] = rope.original_max_positions;
  return json;
}

Json ConfigJson(const ModelConfig& config) {
  return {{"vocab_size", config.vocab_size},
          {"hidden_size", config.hidden_size},
          {"num_layers", config.num_layers},
          {"num_moe_layers", config.NumMoeLayers()},
          {"num_attention_heads", config.num_attention_heads},
          {"num_kv_heads", config.num_kv_heads},
          {"head_dim", config.head_dim},
          {"intermediate_size", config.intermediate_size},
          {"moe_intermediate_size", config.moe_intermediate_size},
          {"num_experts", config.num_experts},
          {"top_k", config.top_k},
          {"tie_word_embeddings", config.tie_word_embeddings},
          {"rope", RopeJson(config.rope)},
          {"max_position_embeddings", config.max_position_embeddings},
          {"quantization", config.quantization.empty() ? Json() : Json(config.quantization)},
          {"dtype", DTypeName(config.dtype)}};
}

Json WeightsJson(const WeightSums& weights) {
  Json parts = Json::object();
  for (const checkpoint::PartSum& part : weights.parts)
    parts[part.name] = {
        {"num_tensors", part.num_tensors}, {"bytes", part.bytes}, {"parameters", part.parameters}};
  Json shapes = Json::array();
  for (const checkpoint::ShapeGroup& group : weights.shapes) {
    Json dims = Json::array();
    for (int i = 0; i < group.shape.rank(); ++i) dims.push_back(group.shape[i]);
    shapes.push_back({{"name", group.pattern},
                      {"dtype", DTypeName(group.dtype)},
                      {"shape", dims},
                      {"count", group.count}});
  }
  return {{"num_files", weights.num_files},
          {"total_bytes", weights.total_bytes},
          {"parameters", weights.parameters},
          {"active_parameters", weights.active_parameters},
          {"bytes_of_dtype", weights.bytes_of_dtype},
          {"parts", parts},
          {"tensors", shapes}};
}

Json ToJson(const Inspection& inspection) {
  Json json = {{"architecture", inspection.architecture},
               {"family", FamilyName(inspection)},
               {"config", inspection.config ? ConfigJson(*inspection.config) : Json()},
               {"eos_ids", inspection.eos_ids},
               {"kv_bytes_per_token",
                inspection.kv_bytes_per_token ? Json(*inspection.kv_bytes_per_token) : Json()},
               {"unsupported", inspection.reasons}};
  if (inspection.weights) json.update(WeightsJson(*inspection.weights));
  return json;
}

// "537.4 thousand", "14.0 million", "30.5 billion"
std::string Count(uint64_t number) {
  const auto value = static_cast<double>(number);
  if (number >= 1000000000) return fmt::format("{:.1f} billion", value / 1e9);
  if (number >= 1000000) return fmt::format("{:.1f} million", value / 1e6);
  if (number >= 1000) return fmt::format("{:.1f} thousand", value / 1e3);
  return fmt::to_string(number);
}

std::string Line(std::string_view label, const std::string& value) {
  return fmt::format("{:<22} {}\n", label, value);
}

std::string ConfigText(const ModelConfig& config) {
  std::string text;
  text +=
      Line("layers", fmt::format("{}, {} with experts", config.num_layers, config.NumMoeLayers()));
  text += Line("hidden size", fmt::to_string(config.hidden_size));
  text += Line("attention heads",
               fmt::format("{} query, {} key/value, {} wide", config.num_attention_heads,
                           config.num_kv_heads, config.head_dim));
  if (config.num_experts > 0)
    text += Line("experts", fmt::format("{} per layer, {} per token, {} wide", config.num_experts,
                                        config.top_k, config.moe_intermediate_size));
  if (config.NumMoeLayers() < config.num_layers)
    text += Line("dense MLP", fmt::format("{} wide", config.intermediate_size));
  text += Line("vocabulary", fmt::format("{}{}", config.vocab_size,
                                         config.tie_word_embeddings ? ", tied embeddings" : ""));
  std::string rope =
      fmt::format("theta {}, {}", config.rope.theta, checkpoint::RopeTypeName(config.rope.type));
  if (config.rope.type != checkpoint::RopeType::kDefault)
    rope += fmt::format(" x {}", config.rope.factor);
  if (config.rope.rotary_fraction != 1.0)
    rope += fmt::format(", {} of each head", config.rope.rotary_fraction);
  text += Line("rotary embedding", rope);
  text += Line("quantisation", config.quantization.empty() ? "none" : config.quantization);
  text += Line("context", fmt::format("{} tokens", config.max_position_embeddings));
  return text;
}

std::string PartsText(const WeightSums& weights) {
  std::string text = fmt::format("\n{:<22} {:>8} {:>14} {:>12} {:>6}\n", "part", "tensors",
                                 "parameters", "bytes", "%");
  for (const checkpoint::PartSum& part : weights.parts)
    text += fmt::format("{:<22} {:>8} {:>14} {:>12} {:>6.1f}\n", part.name, part.num_tensors,
                        part.parameters, FormatBytes(part.bytes),
                        100.0 * static_cast<double>(part.bytes) /
                            static_cast<double>(std::max<uint64_t>(weights.total_bytes, 1)));
  text += "\ntensors\n";
  for (const checkpoint::ShapeGroup& group : weights.shapes)
    text +=
        fmt::format("  {} {} {}{}\n", group.pattern, DTypeName(group.dtype), group.shape.ToString(),
                    group.count > 1 ? fmt::format(" x {}", group.count) : "");
  return text;
}

std::string WeightsText(const WeightSums& weights) {
  std::string dtypes;
  for (const auto& [dtype, bytes] : weights.bytes_of_dtype)
    dtypes += fmt::format("{}{} {}", dtypes.empty() ? "" : ", ", dtype, FormatBytes(bytes));
  return Line("parameters", fmt::format("{}, {} active per token", Count(weights.parameters),
                                        Count(weights.active_parameters))) +
         Line("weights",
              fmt::format("{} in {} {}: {}", FormatBytes(weights.total_bytes), weights.num_files,
                          weights.num_files == 1 ? "file" : "files", dtypes)) +
         PartsText(weights);
}

std::string ToText(const Inspection& inspection) {
  std::string text =
      Line("architecture", fmt::format("{} ({})", inspection.architecture, FamilyName(inspection)));
  if (inspection.config) text += ConfigText(*inspection.config);
  if (inspection.config && inspection.kv_bytes_per_token)
    text += Line(
        "KV cache",
        fmt::format(
            "{} per token in bf16, {} at full context", FormatBytes(*inspection.kv_bytes_per_token),
            FormatBytes(*inspection.kv_bytes_per_token *
                        static_cast<uint64_t>(inspection.config->max_position_embeddings))));
  text +=
      Line("end of text",
           inspection.eos_ids.empty() ? "no token" : "tokens " + Json(inspection.eos_ids).dump());
  if (inspection.weights) text += WeightsText(*inspection.weights);
  text += inspection.reasons.empty() ? "\ncan be run\n" : "\ncannot be run:\n";
  for (const std::string& reason : inspection.reasons) text += "  " + reason + "\n";
  return text;
}

// A folder without one can be run by token ids; one that cannot be read is a reason.
void LookAtTokenizer(const std::string& folder, Inspection& inspection) {
  if (!tokenizer::Tokenizer::IsIn(folder)) return;
  try {
    tokenizer::Tokenizer::FromFile(folder);
  } catch (const Error& error) {
    inspection.reasons.emplace_back(error.what());
  }
}

struct InspectCommand {
  std::string folder;
  bool json = false;

  void Run() const {
    const std::string path = folder.empty() ? EmbeddedModelFolder() : folder;
    Inspection inspection = model::InspectFolder(path);
    LookAtTokenizer(path, inspection);
    WriteFileWhole("-", json ? DumpJson(ToJson(inspection), 2) + "\n" : ToText(inspection));
    if (!inspection.reasons.empty()) EndSilently(ExitCode(ErrorKind::kUnsupported));
  }
};

}  // namespace

void AddInspect(Command program) {
  const Command command = program.Subcommand(
      "inspect", "family, shapes, bytes per part, context, and what is unsupported and why");
  InspectCommand& inspect = command.Runs<InspectCommand>(&InspectCommand::Run);
  command.Add("folder,-m,--model", inspect.folder,
              "Hugging Face folder (default: the embedded model)");
  command.Add("--json", inspect.json, "one JSON document on stdout");
}

}  // namespace wideload::apps
