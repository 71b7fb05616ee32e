// Counters, gauges and histograms of a server in the text format of Prometheus. Thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/job_runner.h"

namespace wideload::serve {

// Of the text format of Prometheus.
inline constexpr char kMetricsType[] = "text/plain; version=0.0.4; charset=utf-8";

// Counts of values by size.
class Histogram {
 public:
  // `bounds` rise; the last bucket, of all, is implied.
  explicit Histogram(std::vector<double> bounds)
      : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}
  // Counts a value.
  void Add(double value);
  // Appends its lines; `labels` without braces.
  void Write(const std::string& name, const std::string& labels, std::string& text) const;

 private:
  std::vector<double> bounds_;
  std::vector<int64_t> counts_;  // of each bucket alone
  double sum_ = 0;
  int64_t num_values_ = 0;
};

// What one choice of a request was, once it has ended.
struct ChoiceFigures {
  int64_t prompt_tokens = 0;
  int64_t generated_tokens = 0;
  double latency_s = 0;           // from its arrival to its end
  double decode_s = 0;            // of these, from its first token to its last
  std::optional<double> queue_s;  // from its arrival to its first iteration; none: it had none
  std::optional<double>
      prefill_s;  // from there to its first token; none: it had none, or that is not known
  std::string finish_reason;
};

class Metrics {
 public:
  // The name is a label of every metric.
  explicit Metrics(const std::string& model_name);

  // model_name="..."
  const std::string& label() const { return label_; }

  // An answer was sent.
  void CountHttp(const std::string& handler, const std::string& method, int status);
  // A request was refused before it ran.
  void CountRejected(const std::string& reason);
  void NoteFirstToken(double seconds);  // since the request's arrival
  void NoteNextToken(double seconds);   // since the token before
  void NoteChoice(const ChoiceFigures& figures);

  // All metrics; `open_requests` are those that have come and not been answered.
  std::string Text(const runtime::EngineFigures& engine, int64_t open_requests,
                   int64_t connections) const;

 private:
  const std::string label_;  // model_name="..."
  mutable std::mutex mutex_;
  Histogram first_token_, next_token_, latency_, queue_, prefill_, decode_, inference_, per_token_,
      prompt_tokens_, generated_tokens_;
  std::map<std::string, int64_t> finished_;  // by reason
  std::map<std::string, int64_t> rejected_;  // by reason
  std::map<std::string, int64_t> http_;      // by labels
  int64_t num_prompt_tokens_ = 0;
  int64_t num_generated_tokens_ = 0;
};

}  // namespace wideload::serve
