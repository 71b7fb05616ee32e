#include "evaluation/scoring.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "tokenizer/unicode.h"

namespace wideload::evaluation {
namespace {

// The white space at the end of a text begins here.
size_t EndOfWords(std::string_view text) {
  size_t end = 0;
  for (size_t at = 0; at < text.size();) {
    const tokenizer::Utf8Unit unit = tokenizer::Utf8At(text, at);
    at += unit.length;
    if (!tokenizer::IsWhiteSpace(unit.code_point)) end = at;
  }
  return end;
}

int64_t NumCodePoints(std::string_view text) {
  int64_t count = 0;
  for (size_t at = 0; at < text.size(); ++count) at += tokenizer::Utf8At(text, at).length;
  return count;
}

double PerUnit(double log_probability, int64_t number) {
  return std::exp(-log_probability / static_cast<double>(number));
}

template <class Values>
size_t IndexOfLargest(const Values& values) {
  return static_cast<size_t>(std::ranges::max_element(values) - values.begin());
}

}  // namespace

std::vector<Prediction> RollingWindows(std::span<const int32_t> ids, int32_t prefix,
                                       int64_t max_ids) {
  WIDELOAD_CHECK(max_ids > 0, "windows of {} ids", max_ids);
  std::vector<Prediction> windows;
  const auto width = static_cast<size_t>(max_ids);
  for (size_t begin = 0; begin < ids.size();) {
    const size_t end = std::min(begin + width, ids.size());
    Prediction window;
    if (begin == 0) {
      window.ids.push_back(prefix);
      window.ids.insert(window.ids.end(), ids.begin(), ids.begin() + static_cast<int64_t>(end) - 1);
    } else {
      // Not the first: there are width ids before the last one.
      const auto last = ids.begin() + static_cast<int64_t>(end) - 1;
      window.ids.assign(last - max_ids, last);
    }
    window.targets.assign(ids.begin() + static_cast<int64_t>(begin),
                          ids.begin() + static_cast<int64_t>(end));
    window.first = std::ssize(window.ids) - std::ssize(window.targets);
    windows.push_back(std::move(window));
    begin = end;
  }
  return windows;
}

Prediction AnswerOf(const Encoder& encoder, std::string_view context, std::string_view answer) {
  const size_t end = EndOfWords(context);
  const std::string continued = std::string(context.substr(end)) + std::string(answer);
  context = context.substr(0, end);
  std::vector<int32_t> ids = encoder.tokenizer.PrefixIds();
  const std::vector<int32_t> whole = encoder.tokenizer.Encode(std::string(context) + continued);
  const size_t num_context = encoder.tokenizer.Encode(context).size();
  if (ids.empty() && num_context == 0) ids.push_back(encoder.prefix);
  const size_t first = ids.size() + num_context;
  ids.insert(ids.end(), whole.begin(), whole.end());
  if (first >= ids.size())
    Throw(ErrorKind::kInvalid, "the answer \"{}\" has no token of its own after its context",
          answer);
  Prediction prediction{.targets = {ids.begin() + static_cast<int64_t>(first), ids.end()}};
  if (std::ssize(prediction.targets) > encoder.max_ids)
    Throw(ErrorKind::kInvalid, "an answer has {} tokens; at most {} (max_seq_len) are allowed",
          prediction.targets.size(), encoder.max_ids);
  ids.pop_back();  // predicts nothing
  const int64_t num_cut = std::max<int64_t>(0, std::ssize(ids) - encoder.max_ids);
  prediction.ids.assign(ids.begin() + num_cut, ids.end());
  prediction.first = std::ssize(prediction.ids) - std::ssize(prediction.targets);
  return prediction;
}

double LogProbability(std::span<const float> logits, int32_t id) {
  const double top = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - top);
  return static_cast<double>(logits[static_cast<size_t>(id)]) - top - std::log(sum);
}

TextSize SizeOf(std::string_view text, int64_t num_tokens) {
  TextSize size{.tokens = num_tokens, .bytes = std::ssize(text), .words = 1};
  bool is_space = false;
  for (size_t at = 0; at < text.size();) {
    const tokenizer::Utf8Unit unit = tokenizer::Utf8At(text, at);
    at += unit.length;
    const bool was_space = std::exchange(is_space, tokenizer::IsWhiteSpace(unit.code_point));
    if (is_space && !was_space) ++size.words;
  }
  return size;
}

double TextScore::perplexity() const { return PerUnit(log_probability, size.tokens); }
double TextScore::word_perplexity() const { return PerUnit(log_probability, size.words); }
double TextScore::byte_perplexity() const { return PerUnit(log_probability, size.bytes); }
double TextScore::bits_per_byte() const {
  return -log_probability / static_cast<double>(size.bytes) / std::numbers::ln2;
}

Accuracy AccuracyOf(int64_t num_right, int64_t num_all) {
  const auto n = static_cast<double>(num_all);
  Accuracy accuracy{.mean = static_cast<double>(num_right) / n};
  // Of values 0 and 1 the sample's variance is n / (n - 1) mean (1 - mean).
  if (num_all > 1)
    accuracy.standard_error = std::sqrt(accuracy.mean * (1 - accuracy.mean) / (n - 1));
  return accuracy;
}

Choice Choose(const Question& question, std::span<const double> log_probabilities) {
  std::vector<double> by_length;
  for (size_t i = 0; i < log_probabilities.size(); ++i)
    by_length.push_back(log_probabilities[i] /
                        static_cast<double>(NumCodePoints(question.choices[i])));
  return {.most_likely = IndexOfLargest(log_probabilities),
          .most_likely_by_length = IndexOfLargest(by_length)};
}

}  // namespace wideload::evaluation
