// `wideload inspect`: what a model folder holds, and why it cannot be run if it cannot.
#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "checkpoint/inspection.h"
#include "commands.h"
#include "embedded_model.h"
#include "model/registry.h"

namespace wideload::apps {
namespace {

using checkpoint::Inspection;
using checkpoint::ModelConfig;

std::string FamilyName(const std::string& architecture) {
  for (const model::Family& family : model::Families())
    if (family.architecture == architecture) return std::string(family.name);
  return "not implemented";
}

Json RopeJson(const checkpoint::RopeConfig& rope) {
  Json json = {{"theta", rope.theta}, {"type", checkpoint::RopeTypeName(rope.type)}};
  if (rope.type != checkpoint::RopeType::kDefault) json["factor"] = rope.factor;
  if (rope.type == checkpoint::RopeType::kYarn)
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
          {"norm_topk_prob", config.norm_topk_prob},
          {"tie_word_embeddings", config.tie_word_embeddings},
          {"rope", RopeJson(config.rope)},
          {"max_position_embeddings", config.max_position_embeddings},
          {"dtype", DTypeName(config.dtype)}};
}

Json ToJson(const Inspection& inspection) {
  Json parts = Json::object();
  for (const checkpoint::PartSum& part : inspection.parts)
    parts[part.name] = {
        {"num_tensors", part.num_tensors}, {"bytes", part.bytes}, {"parameters", part.parameters}};
  Json shapes = Json::array();
  for (const checkpoint::ShapeGroup& group : inspection.shapes) {
    Json dims = Json::array();
    for (int i = 0; i < group.shape.rank(); ++i) dims.push_back(group.shape[i]);
    shapes.push_back({{"name", group.pattern},
                      {"dtype", DTypeName(group.dtype)},
                      {"shape", dims},
                      {"count", group.count}});
  }
  Json json = {{"architecture", inspection.architecture},
               {"family", FamilyName(inspection.architecture)},
               {"config", inspection.config ? ConfigJson(*inspection.config) : Json()},
               {"eos_ids", inspection.eos_ids},
               {"num_files", inspection.num_files},
               {"total_bytes", inspection.total_bytes},
               {"parameters", inspection.parameters},
               {"active_parameters", inspection.active_parameters},
               {"bytes_of_dtype", inspection.bytes_of_dtype},
               {"parts", parts},
               {"tensors", shapes},
               {"unsupported", inspection.unsupported}};
  const std::optional<uint64_t> kv_bytes = inspection.KvBytesPerToken();
  json["kv_bytes_per_token"] = kv_bytes ? Json(*kv_bytes) : Json();
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
    text += Line("experts", fmt::format("{} per layer, {} per token, {} wide{}", config.num_experts,
                                        config.top_k, config.moe_intermediate_size,
                                        config.norm_topk_prob ? ", weights sum to 1" : ""));
  if (config.NumMoeLayers() < config.num_layers)
    text += Line("dense MLP", fmt::format("{} wide", config.intermediate_size));
  text += Line("vocabulary", fmt::format("{}{}", config.vocab_size,
                                         config.tie_word_embeddings ? ", tied embeddings" : ""));
  std::string rope =
      fmt::format("theta {}, {}", config.rope.theta, checkpoint::RopeTypeName(config.rope.type));
  if (config.rope.type != checkpoint::RopeType::kDefault)
    rope += fmt::format(" x {}", config.rope.factor);
  text += Line("rotary embedding", rope);
  text += Line("context", fmt::format("{} tokens", config.max_position_embeddings));
  return text;
}

std::string PartsText(const Inspection& inspection) {
  std::string text = fmt::format("\n{:<22} {:>8} {:>14} {:>12} {:>6}\n", "part", "tensors",
                                 "parameters", "bytes", "%");
  for (const checkpoint::PartSum& part : inspection.parts)
    text += fmt::format("{:<22} {:>8} {:>14} {:>12} {:>6.1f}\n", part.name, part.num_tensors,
                        part.parameters, FormatBytes(part.bytes),
                        100.0 * static_cast<double>(part.bytes) /
                            static_cast<double>(std::max<uint64_t>(inspection.total_bytes, 1)));
  text += "\ntensors\n";
  for (const checkpoint::ShapeGroup& group : inspection.shapes)
    text +=
        fmt::format("  {} {} {}{}\n", group.pattern, DTypeName(group.dtype), group.shape.ToString(),
                    group.count > 1 ? fmt::format(" x {}", group.count) : "");
  return text;
}

std::string ToText(const Inspection& inspection) {
  std::string text = Line("architecture", fmt::format("{} ({})", inspection.architecture,
                                                      FamilyName(inspection.architecture)));
  if (inspection.config) text += ConfigText(*inspection.config);
  const std::optional<uint64_t> kv_bytes = inspection.KvBytesPerToken();
  if (kv_bytes && inspection.config)
    text +=
        Line("KV cache",
             fmt::format("{} per token in bf16, {} at full context", FormatBytes(*kv_bytes),
                         FormatBytes(*kv_bytes * static_cast<uint64_t>(
                                                     inspection.config->max_position_embeddings))));
  text +=
      Line("end of text",
           inspection.eos_ids.empty() ? "no token" : "tokens " + Json(inspection.eos_ids).dump());
  text += Line("parameters", fmt::format("{}, {} active per token", Count(inspection.parameters),
                                         Count(inspection.active_parameters)));
  std::string dtypes;
  for (const auto& [dtype, bytes] : inspection.bytes_of_dtype)
    dtypes += fmt::format("{}{} {}", dtypes.empty() ? "" : ", ", dtype, FormatBytes(bytes));
  text += Line("weights", fmt::format("{} in {} {}: {}", FormatBytes(inspection.total_bytes),
                                      inspection.num_files,
                                      inspection.num_files == 1 ? "file" : "files", dtypes));
  text += PartsText(inspection);
  text += inspection.unsupported.empty() ? "\ncan be run\n" : "\ncannot be run:\n";
  for (const std::string& reason : inspection.unsupported) text += "  " + reason + "\n";
  return text;
}

struct InspectCommand {
  std::string folder;
  bool json = false;

  void Run() const {
    std::vector<std::string_view> supported;
    for (const model::Family& family : model::Families()) supported.push_back(family.architecture);
    const Inspection inspection =
        checkpoint::InspectFolder(folder.empty() ? EmbeddedModelFolder() : folder, supported);
    WriteFileWhole("-", json ? DumpJson(ToJson(inspection), 2) + "\n" : ToText(inspection));
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
