// wideload tokenize: texts to token ids and back, as JSON files.
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "commands.h"
#include "embedded_model.h"
#include "tokenizer/tokenizer.h"

namespace wideload::apps {
namespace {

struct TokenizeOptions {
  std::string model;
  std::string input = "-";
  std::string output = "-";
  bool decode = false;
};

std::string Shown(const Json& value) {
  const std::string text = DumpJson(value);
  return text.size() <= 60 ? text : text.substr(0, 57) + "...";
}

// "texts.json: element 3 is 7; it must be a string"
[[noreturn]] void RefuseElement(const std::string& source, const std::string& place,
                                const Json& found, const std::string& allowed) {
  Throw(ErrorKind::kInvalid, "{}: {} is {}; it must be {}", source, place, Shown(found), allowed);
}

Json EncodeAll(const tokenizer::Tokenizer& tokenizer, const Json& texts,
               const std::string& source) {
  Json lists = Json::array();
  for (size_t i = 0; i < texts.size(); ++i) {
    if (!texts[i].is_string())
      RefuseElement(source, fmt::format("element {}", i), texts[i], "a string");
    lists.push_back(tokenizer.Encode(texts[i].get_ref<const std::string&>()));
  }
  return lists;
}

std::vector<int32_t> IdsOf(const tokenizer::Tokenizer& tokenizer, const Json& list,
                           const std::string& source, size_t index) {
  if (!list.is_array())
    RefuseElement(source, fmt::format("element {}", index), list, "a list of token ids");
  std::vector<int32_t> ids;
  ids.reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    const Json& value = list[i];
    const bool is_id = value.is_number_unsigned() &&
                       value.get<uint64_t>() < static_cast<uint64_t>(tokenizer.NumIds()) &&
                       tokenizer.HasToken(value.get<int32_t>());
    if (!is_id)
      RefuseElement(source, fmt::format("element {}, position {}", index, i), value,
                    fmt::format("the id of a token in [0, {}]", tokenizer.NumIds() - 1));
    ids.push_back(value.get<int32_t>());
  }
  return ids;
}

Json DecodeAll(const tokenizer::Tokenizer& tokenizer, const Json& lists,
               const std::string& source) {
  Json texts = Json::array();
  for (size_t i = 0; i < lists.size(); ++i)
    texts.push_back(tokenizer.Decode(IdsOf(tokenizer, lists[i], source, i)));
  return texts;
}

// Refuses before work an output that cannot be written.
std::unique_ptr<WholeFileWriter> OpenOutput(const std::string& path) {
  try {
    return std::make_unique<WholeFileWriter>(path);
  } catch (const Error& e) {
    Throw(ErrorKind::kInvalid, "--output: {}", e.what());
  }
}

void Tokenize(const TokenizeOptions& options) {
  const auto output = options.output == "-" ? nullptr : OpenOutput(options.output);
  const auto tokenizer =
      tokenizer::Tokenizer::FromFile(options.model.empty() ? EmbeddedModelFolder() : options.model);
  const std::string source = options.input == "-" ? "standard input" : options.input;
  const Json input = ParseJson(ReadFile(options.input), source);
  const std::string expected =
      options.decode ? "a list of lists of token ids" : "a list of strings";
  if (!input.is_array()) RefuseElement(source, "the document", input, expected);
  const Json result =
      options.decode ? DecodeAll(tokenizer, input, source) : EncodeAll(tokenizer, input, source);
  const std::string text = DumpJson(result) + "\n";
  if (output == nullptr) return WriteFileWhole(options.output, text);
  output->Append(text);
  output->Commit();
}

}  // namespace

void AddTokenize(Command program) {
  const Command command = program.Subcommand("tokenize", "turn texts into token ids, or back");
  TokenizeOptions& options = command.Runs<TokenizeOptions>(Tokenize);
  command.Add("-m,--model", options.model,
              "model folder or tokenizer.json (default: the embedded model)");
  command.Add("-i,--input", options.input,
              "JSON list of strings, with --decode of lists of ids; - is standard input");
  command.Add("-o,--output", options.output,
              "JSON list of lists of ids, with --decode of strings; - is standard output");
  command.Add("--decode", options.decode, "ids to texts, special tokens kept");
}

}  // namespace wideload::apps
