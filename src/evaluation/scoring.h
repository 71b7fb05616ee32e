// What a model is asked to predict, and what its predictions are worth: the definitions of lm-eval
// 0.4 (lm_eval/utils.py, api/model.py, api/metrics.py). Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "evaluation/tasks.h"
#include "tokenizer/tokenizer.h"

namespace wideload::evaluation {

// Ids to read, and those to predict: targets[i] by the logits of position first + i.
struct Prediction {
  std::vector<int32_t> ids;
  int64_t first = 0;
  std::vector<int32_t> targets;
};

// Every token of a text once, in windows of at most `max_ids` ids, each of which takes as many as
// it can from what is before it; the first begins with `prefix`. None for an empty text.
std::vector<Prediction> RollingWindows(std::span<const int32_t> ids, int32_t prefix,
                                       int64_t max_ids);

// How texts become ids.
struct Encoder {
  const tokenizer::Tokenizer& tokenizer;
  int32_t prefix = 0;   // that stands before a text where the tokenizer puts nothing
  int64_t max_ids = 0;  // to read; more are cut off at the beginning
};
// The tokens of `answer` after `context`. White space at the end of the context counts as the
// answer's, as tokens join them. Errors: kInvalid when the answer has no token of its own or more
// than may be read.
Prediction AnswerOf(const Encoder& encoder, std::string_view context, std::string_view answer);

// ln softmax(logits)[id], in double.
double LogProbability(std::span<const float> logits, int32_t id);

// What a text is made of.
struct TextSize {
  int64_t tokens = 0;
  int64_t bytes = 0;
  int64_t words = 0;  // parts that white space divides, empty ones at the ends included
};
TextSize SizeOf(std::string_view text, int64_t num_tokens);

// Of texts together: exp(-sum of log probabilities / number).
struct TextScore {
  TextSize size;
  double log_probability = 0;

  double perplexity() const;  // of a token
  double word_perplexity() const;
  double byte_perplexity() const;
  double bits_per_byte() const;
};

// A mean over questions, and its standard error (of the sample); none for one question.
struct Accuracy {
  double mean = 0;
  std::optional<double> standard_error;
};
// Of num_right of num_all.
Accuracy AccuracyOf(int64_t num_right, int64_t num_all);

// The answer with the largest log probability, and with the largest by character of the choice; of
// equal ones the first.
struct Choice {
  size_t most_likely = 0;
  size_t most_likely_by_length = 0;
};
Choice Choose(const Question& question, std::span<const double> log_probabilities);

}  // namespace wideload::evaluation
