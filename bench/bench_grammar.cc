// What it costs to find which tokens a grammar allows: thread CPU time of making the grammar, of a
// step at first sight, and of one that has been seen. Usage: bench_grammar TOKENIZER [IDS]
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <vector>

#include "bench_timing.h"
#include "grammar/json_schema.h"
#include "grammar/token_grammar.h"
#include "jinja/json_value.h"

namespace wideload::bench {
namespace {

struct Subject {
  const char* name;
  const char* schema;
};

constexpr Subject kSubjects[] = {
    {"any object", R"({"type": "object"})"},
    {"person", R"({"type": "object", "properties": {"name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}},
        "home": {"type": "object", "properties": {"street": {"type": "string"},
        "zip": {"type": "string", "pattern": "^[0-9]{5}$"}}, "required": ["street", "zip"]}},
        "required": ["name", "age", "tags", "home"], "additionalProperties": false})"},
    {"bounded text", R"({"type": "string", "minLength": 20, "maxLength": 400})"},
    {"tree", R"({"type": "object", "properties": {"label": {"type": "string"}, "children":
        {"type": "array", "items": {"$ref": "#"}}}, "required": ["label", "children"]})"},
    {"48 unions", nullptr},
};

std::string Unions() {
  std::string ways;
  for (int i = 0; i < 48; ++i)
    ways += fmt::format(R"({}{{"type": "object", "properties": {{"kind": {{"const": "kind{}"}},)"
                        R"("value": {{"type": "string", "maxLength": {}}}}},)"
                        R"("required": ["kind", "value"]}})",
                        i > 0 ? "," : "", i, 10 + i);
  return "{\"anyOf\": [" + ways + "]}";
}

// Walks of up to so many tokens, the same for the same seed; the time of each step is added.
void Walk(const std::shared_ptr<grammar::TokenGrammar>& grammar, uint32_t seed,
          std::vector<double>& seconds) {
  const Clock clock{CLOCK_THREAD_CPUTIME_ID};
  std::mt19937 random(seed);
  grammar::TokenMatcher matcher(grammar);
  for (int step = 0; step < 100 && matcher.GoesOn(); ++step) {
    const double begin = clock.Seconds();
    const auto allowed = matcher.Allowed();
    seconds.push_back(clock.Seconds() - begin);
    std::vector<int32_t> tokens;
    for (size_t word = 0; word < allowed->size(); ++word)
      for (size_t bit = 0; bit < 64; ++bit)
        if (((*allowed)[word] >> bit & 1) != 0)
          tokens.push_back(static_cast<int32_t>(word * 64 + bit));
    matcher.Advance(tokens[random() % tokens.size()]);
  }
}

void Run(const std::string& folder, int64_t num_ids) {
  const Clock clock{CLOCK_THREAD_CPUTIME_ID};
  const auto tokenizer = tokenizer::Tokenizer::FromFile(folder);
  double begin = clock.Seconds();
  const auto trie = std::make_shared<const grammar::TokenTrie>(
      tokenizer, std::max<int64_t>(num_ids, tokenizer.NumIds()));
  fmt::print("{} ids, {} bytes of tokens: {:.0f} ms\n", trie->vocab_size(), trie->nodes().size(),
             1e3 * (clock.Seconds() - begin));
  fmt::print("{:<14}{:>10}{:>10}{:>12}{:>12}{:>14}{:>10}\n", "ms", "compile", "prepare",
             "first max", "first mean", "again median", "memory");
  for (const Subject& subject : kSubjects) {
    const std::string schema = subject.schema != nullptr ? subject.schema : Unions();
    begin = clock.Seconds();
    grammar::Grammar compiled =
        grammar::SchemaGrammar(jinja::ParseJsonValue(schema, "schema"), "schema");
    const double compile = clock.Seconds() - begin;
    begin = clock.Seconds();
    const auto shared = std::make_shared<grammar::TokenGrammar>(std::move(compiled), trie);
    const double prepare = clock.Seconds() - begin;
    std::vector<double> first, again;
    for (uint32_t seed = 0; seed < 10; ++seed) Walk(shared, seed, first);
    for (uint32_t seed = 0; seed < 10; ++seed) Walk(shared, seed, again);
    double sum = 0;
    for (const double seconds : first) sum += seconds;
    fmt::print("{:<14}{:>10.2f}{:>10.2f}{:>12.3f}{:>12.3f}{:>14.4f}{:>8.1f} MB\n", subject.name,
               1e3 * compile, 1e3 * prepare, 1e3 * *std::max_element(first.begin(), first.end()),
               1e3 * sum / static_cast<double>(first.size()), 1e3 * Median(again),
               static_cast<double>(trie->cached_bytes()) / 1e6);
  }
}

}  // namespace
}  // namespace wideload::bench

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: bench_grammar TOKENIZER [IDS]\n");
    return 2;
  }
  wideload::bench::Run(argv[1], argc > 2 ? std::atoll(argv[2]) : 0);
  return 0;
}
