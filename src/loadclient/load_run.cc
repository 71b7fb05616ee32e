#include "loadclient/load_run.h"

#include <algorithm>
#include <limits>
#include <memory>

#include "base/error.h"
#include "loadclient/completion_chunk.h"

namespace wideload::loadclient {
namespace {

using Clock = HttpClient::Clock;
constexpr size_t kMaxErrorBody = 64 << 10;

class Run {
 public:
  Run(HttpClient& client, const std::vector<LoadRequest>& requests, const LoadOptions& options)
      : client_(client),
        requests_(requests),
        options_(options),
        limit_(options.max_concurrency > 0 ? options.max_concurrency
                                           : std::numeric_limits<int64_t>::max()),
        outcomes_(requests.size()),
        has_ended_(requests.size()) {}

  LoadResult Do();

 private:
  // An answer that is coming.
  struct Answer {
    int status = 0;
    EventReader reader{};
    std::string error_body{};
    int64_t num_texts = 0, num_choices = 0;
    bool is_done = false;  // [DONE] has come
  };

  double Now() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  void SendDue();
  void Send(size_t index);
  void Take(size_t index, Answer& answer, std::string_view bytes);
  void TakeEvent(size_t index, Answer& answer, std::string_view data);
  void End(size_t index, const Answer& answer, const std::string& error);

  HttpClient& client_;
  const std::vector<LoadRequest>& requests_;
  const LoadOptions& options_;
  const int64_t limit_;
  std::vector<Outcome> outcomes_;
  std::vector<bool> has_ended_;
  Clock::time_point start_{};
  size_t next_ = 0;
  bool is_waiting_ = false;  // until the next one is due
  int64_t num_running_ = 0, num_ended_ = 0;
  double last_end_s_ = 0;
};

LoadResult Run::Do() {
  start_ = Clock::now();
  SendDue();
  LoadResult result;
  result.is_complete = client_.Run(options_.is_interrupted);
  // The client itself notes the end up to 100 ms late.
  result.duration_s = result.is_complete ? last_end_s_ : Now();
  for (size_t i = 0; i < outcomes_.size(); ++i)
    if (has_ended_[i]) result.outcomes.push_back(std::move(outcomes_[i]));
  return result;
}

// Sends what is due, and looks again when the next one is. Where the limit keeps it from being
// sent, the end of another does.
void Run::SendDue() {
  while (next_ < requests_.size() && num_running_ < limit_) {
    const double due_s = options_.arrivals_s[next_];
    if (due_s > Now()) {
      const auto after =
          std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(due_s));
      if (!std::exchange(is_waiting_, true))
        client_.At(start_ + after, [this] {
          is_waiting_ = false;
          SendDue();
        });
      return;
    }
    Send(next_++);
  }
}

void Run::Send(size_t index) {
  ++num_running_;
  outcomes_[index].start_s = Now();
  const auto answer = std::make_shared<Answer>();  // owners: the three functions of the sink
  client_.Send(
      {.path = options_.path, .headers = options_.headers, .body = requests_[index].body},
      {.head = [answer](int status) { answer->status = status; },
       .body = [this, index, answer](std::string_view bytes) { Take(index, *answer, bytes); },
       .end = [this, index, answer](const std::string& error) { End(index, *answer, error); }});
}

void Run::Take(size_t index, Answer& answer, std::string_view bytes) {
  if (answer.status == 200)
    return answer.reader.Feed(bytes,
                              [&](std::string_view data) { TakeEvent(index, answer, data); });
  if (answer.error_body.size() < kMaxErrorBody) answer.error_body += bytes;
}

// The first text ends the time to the first token; a stream without any has its first choice.
void Run::TakeEvent(size_t index, Answer& answer, std::string_view data) {
  if (data == "[DONE]") {
    answer.is_done = true;
    return;
  }
  const double now = Now();
  const Chunk chunk = ParseChunk(data);
  Outcome& outcome = outcomes_[index];
  if (!chunk.error.empty()) Throw(ErrorKind::kRunFailed, "{}", chunk.error);
  if (chunk.prompt_tokens >= 0) outcome.prompt_tokens = chunk.prompt_tokens;
  if (chunk.completion_tokens >= 0) outcome.output_tokens = chunk.completion_tokens;
  if (!chunk.has_choice) return;
  if (answer.num_choices++ == 0) outcome.first_text_s = outcome.end_s = now;
  if (chunk.text.empty()) return;
  if (answer.num_texts++ == 0)
    outcome.first_text_s = now;
  else
    outcome.gaps_s.push_back(now - outcome.end_s);
  outcome.end_s = now;
  outcome.text += chunk.text;
}

void Run::End(size_t index, const Answer& answer, const std::string& error) {
  Outcome& outcome = outcomes_[index];
  last_end_s_ = Now();
  if (answer.status != 0 && answer.status != 200)
    outcome.error = ErrorName(answer.status, answer.error_body);
  else if (!error.empty())
    outcome.error = error;
  else if (answer.num_choices == 0)
    outcome.error = "the stream has no choice";
  else if (!answer.is_done)
    outcome.error = "the stream has no [DONE]";
  if (!outcome.error.empty()) outcome.end_s = last_end_s_;
  if (outcome.prompt_tokens == 0) outcome.prompt_tokens = requests_[index].prompt_tokens;
  if (outcome.output_tokens == 0) outcome.output_tokens = answer.num_texts;
  has_ended_[index] = true;
  --num_running_;
  ++num_ended_;
  if (options_.progress) options_.progress(num_ended_, num_running_);
  SendDue();
}

}  // namespace

LoadResult RunLoad(HttpClient& client, const std::vector<LoadRequest>& requests,
                   const LoadOptions& options) {
  WIDELOAD_CHECK(options.arrivals_s.size() == requests.size(), "{} arrivals of {} requests",
                 options.arrivals_s.size(), requests.size());
  return Run(client, requests, options).Do();
}

}  // namespace wideload::loadclient
