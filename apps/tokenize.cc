// wideload tokenize: texts to token ids and back, as JSON files.
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "commands.h"
#include "embedded_model.h"
#include "file_flags.h"
#include "tokenizer/tokenizer.h"

namespace wideload::apps {
namespace {

struct TokenizeOptions {
  std::string model;
  std::string input = "-";
  std::string output = "-";
  bool decode = false;
  bool add_special = false;
  bool skip_special = false;
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

Json EncodeAll(const tokenizer::Tokenizer& tokenizer, const Json& texts, const std::string& source,
               bool add_special) {
  Json lists = Json::array();
  for (size_t i = 0; i < texts.size(); ++i) {
    if (!texts[i].is_string())
      RefuseElement(source, fmt::format("element {}", i), texts[i], "a string");
    const auto& text = texts[i].get_ref<const std::string&>();
    lists.push_back(add_special ? tokenizer.EncodeWithSpecial(text) : tokenizer.Encode(text));
  }
  return lists;
}

// A model may have more ids than the tokenizer: those are ids, too.
std::vector<int32_t> IdsOf(const Json& list, const std::string& source, size_t index) {
  if (!list.is_array())
    RefuseElement(source, fmt::format("element {}", index), list, "a list of token ids");
  std::vector<int32_t> ids;
  ids.reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    const Json& value = list[i];
    if (!value.is_number_unsigned() || value.get<uint64_t>() > 0x7fffffff)
      RefuseElement(source, fmt::format("element {}, position {}", index, i), value,
                    "a token id, an integer in [0, 2147483647]");
    ids.push_back(value.get<int32_t>());
  }
  return ids;
}

Json DecodeAll(const tokenizer::Tokenizer& tokenizer, const Json& lists, const std::string& source,
               bool skip_special) {
  Json texts = Json::array();
  for (size_t i = 0; i < lists.size(); ++i)
    texts.push_back(tokenizer.Decode(IdsOf(lists[i], source, i), skip_special));
  return texts;
}

void Tokenize(const TokenizeOptions& options) {
  if (options.add_special && options.decode)
    Throw(ErrorKind::kInvalid, "--add-special-tokens is for encoding; leave out --decode");
  if (options.skip_special && !options.decode)
    Throw(ErrorKind::kInvalid, "--skip-special-tokens is for decoding; add --decode");
  const std::string model = options.model.empty() ? EmbeddedModelFolder() : options.model;
  CheckFiles({Reads("--model", model), Reads("--input", options.input),
              Writes("--output", options.output)});
  WholeFileWriter output(options.output);
  const auto tokenizer = tokenizer::Tokenizer::FromFile(model);
  const std::string source = options.input == "-" ? "standard input" : options.input;
  const Json input = ParseJson(ReadFile(options.input), source);
  const std::string expected =
      options.decode ? "a list of lists of token ids" : "a list of strings";
  if (!input.is_array()) RefuseElement(source, "the document", input, expected);
  const Json result = options.decode ? DecodeAll(tokenizer, input, source, options.skip_special)
                                     : EncodeAll(tokenizer, input, source, options.add_special);
  output.Append(DumpJson(result) + "\n");
  output.Commit();
}

}  // namespace

void AddTokenize(Command program) {
  const Command command = program.Subcommand("tokenize", "turn texts into token ids, or back");
  TokenizeOptions& options = command.Runs<TokenizeOptions>(Tokenize);
  command.Add("-m,--model", options.model,
              "model folder, tokenizer.json or tiktoken.model (default: the embedded model)");
  command.Add("-i,--input", options.input,
              "JSON list of strings, with --decode of lists of ids; - is standard input");
  command.Add("-o,--output", options.output,
              "JSON list of lists of ids, with --decode of strings; - is standard output");
  command.Add("--decode", options.decode,
              "ids to texts; an id without a token gives nothing, special tokens are kept");
  command.Add("--add-special-tokens", options.add_special,
              "encode with the tokens that the tokenizer puts before and after a text");
  command.Add("--skip-special-tokens", options.skip_special, "decode without special tokens");
}

}  // namespace wideload::apps
