// Any bytes as texts and as questions: read or refused; answers of what was read have tokens.
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "evaluation/scoring.h"
#include "tokenizer/small_tokenizer.h"

namespace {

using namespace wideload;  // NOLINT(google-build-using-namespace): a program of one file
using namespace wideload::evaluation;  // NOLINT(google-build-using-namespace)

template <class Work>
void ReadOrRefuse(Work work) {
  try {
    work();
  } catch (const Error&) {
    // a refusal is an answer
  }
}

constexpr int64_t kMaxIds = 16;

void ReadTexts(std::string_view text, const tokenizer::Tokenizer& tokenizer) {
  for (const std::string& document : ParseDocuments(text, "texts.jsonl")) {
    const std::vector<int32_t> ids = tokenizer.Encode(document);
    size_t num_predicted = 0;
    for (const Prediction& window : RollingWindows(ids, 0, kMaxIds))
      num_predicted += window.targets.size();
    WIDELOAD_CHECK(num_predicted == ids.size(), "{} of {} tokens", num_predicted, ids.size());
  }
}

void ReadQuestions(std::string_view text, const tokenizer::Tokenizer& tokenizer) {
  for (const Question& question : ParseQuestions(text, "questions.jsonl")) {
    WIDELOAD_CHECK(question.gold < question.choices.size(), "gold {}", question.gold);
    for (const std::string& choice : question.choices) {
      const Prediction answer = AnswerOf({tokenizer, 0, kMaxIds}, question.context, choice);
      WIDELOAD_CHECK(answer.first >= 0 && !answer.targets.empty() &&
                         std::ssize(answer.ids) <= kMaxIds &&
                         answer.first + std::ssize(answer.targets) == std::ssize(answer.ids),
                     "{} ids, {} targets", answer.ids.size(), answer.targets.size());
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const tokenizer::Tokenizer tokenizer = tokenizer::Tokenizer::FromText(
      DumpJson(tokenizer::SmallTokenizerJson({"a b"})), "small.json");
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  ReadOrRefuse([&] { ReadTexts(text, tokenizer); });
  ReadOrRefuse([&] { ReadQuestions(text, tokenizer); });
  return 0;
}
