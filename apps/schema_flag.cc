#include "schema_flag.h"

#include "base/file.h"
#include "grammar/json_schema.h"
#include "grammar/token_trie.h"
#include "jinja/json_value.h"

namespace wideload::apps {

void AddJsonSchemaFlag(Command command, std::string& file) {
  command.Add("--json-schema", file,
              "file with a JSON schema: what is generated is JSON that it allows");
}

std::shared_ptr<grammar::TokenGrammar> OpenJsonSchema(const std::string& file,
                                                      const tokenizer::Tokenizer& tokenizer,
                                                      int64_t vocab_size) {
  if (file.empty()) return nullptr;
  const jinja::Value schema = jinja::ParseJsonValue(ReadFile(file, kMaxSettingsBytes), file);
  return std::make_shared<grammar::TokenGrammar>(
      grammar::SchemaGrammar(schema, file),
      std::make_shared<const grammar::TokenTrie>(tokenizer, vocab_size));
}

}  // namespace wideload::apps
