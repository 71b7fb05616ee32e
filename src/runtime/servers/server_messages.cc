#include "runtime/servers/server_messages.h"

#include "base/error.h"
#include "runtime/processes/step_order.h"
#include "runtime/processes/wire.h"

namespace wideload::runtime {
namespace {

using std::chrono::steady_clock;

struct PromptHead {
  SamplingParams sampling;
  int64_t max_tokens = 0;
  int64_t min_tokens = 0;
  uint64_t index = 0;
  int32_t priority = 0;
  int32_t prompt_logprobs = -1;
  uint64_t keeps_cache = 0;
};

struct DeltaHead {
  int64_t num_cached_tokens = 0;
  int64_t ns_since_begun = -1;  // -1: it has not
  int32_t token = -1;
  FinishReason finish = FinishReason::kNone;
  int32_t has_lease = 0;
  int32_t group = 0;
};

void WriteJob(const Job& job, ByteWriter& writer) {
  const Request& request = job.request;
  writer.Put(PromptHead{.sampling = request.sampling,
                        .max_tokens = request.max_tokens,
                        .min_tokens = request.min_tokens,
                        .index = request.index,
                        .priority = request.priority,
                        .prompt_logprobs = job.prompt_logprobs,
                        .keeps_cache = request.keeps_cache});
  writer.PutAll(std::span<const int32_t>(request.prompt));
  writer.PutAll(std::span<const int32_t>(request.eos_ids));
  writer.PutAll(std::span<const TokenBias>(request.logit_bias));
  writer.PutText(request.cache_salt);
  writer.PutAll(std::span<const uint64_t>(request.first_allowed));
}

template <class T>
void TakeInto(ByteReader& reader, std::vector<T>& values) {
  const std::span<const T> found = reader.TakeAll<T>();
  values.assign(found.begin(), found.end());
}

Job ReadJob(ByteReader& reader) {
  Job job;
  const auto head = reader.Take<PromptHead>();
  job.prompt_logprobs = head.prompt_logprobs;
  Request& request = job.request;
  request.sampling = head.sampling;
  request.max_tokens = head.max_tokens;
  request.min_tokens = head.min_tokens;
  request.index = head.index;
  request.priority = head.priority;
  request.keeps_cache = head.keeps_cache != 0;
  TakeInto(reader, request.prompt);
  TakeInto(reader, request.eos_ids);
  TakeInto(reader, request.logit_bias);
  request.cache_salt = reader.TakeText();
  TakeInto(reader, request.first_allowed);
  return job;
}

void WriteDelta(const ServerMessage& message, ByteWriter& writer) {
  const Delta& delta = message.delta;
  const bool has_begun = delta.begun != steady_clock::time_point();
  writer.Put(DeltaHead{
      .num_cached_tokens = delta.num_cached_tokens,
      .ns_since_begun =
          has_begun ? (steady_clock::now() - delta.begun) / std::chrono::nanoseconds(1) : -1,
      .token = delta.token,
      .finish = delta.finish,
      .has_lease = message.has_lease,
      .group = message.group});
  writer.PutText(delta.error);
  writer.PutAll(std::span<const TokenLogprob>(delta.logprobs));
  writer.Put(static_cast<uint64_t>(delta.prompt_logprobs.size()));
  for (const auto& position : delta.prompt_logprobs)
    writer.PutAll(std::span<const TokenLogprob>(position));
  WriteTables(message.tables, writer);
}

void ReadDelta(ByteReader& reader, ServerMessage& message) {
  const auto head = reader.Take<DeltaHead>();
  Delta& delta = message.delta;
  delta.num_cached_tokens = head.num_cached_tokens;
  if (head.ns_since_begun >= 0)
    delta.begun = steady_clock::now() - std::chrono::nanoseconds(head.ns_since_begun);
  delta.token = head.token;
  if (head.finish < FinishReason::kNone || head.finish > FinishReason::kDeadline)
    Throw(ErrorKind::kCorrupt, "a prompt that ends for reason {}",
          static_cast<int32_t>(head.finish));
  delta.finish = head.finish;
  message.has_lease = head.has_lease != 0;
  message.group = head.group;
  delta.error = reader.TakeText();
  TakeInto(reader, delta.logprobs);
  for (auto left = reader.Take<uint64_t>(); left > 0; --left)
    TakeInto(reader, delta.prompt_logprobs.emplace_back());
  message.tables = ReadTables(reader);
}

}  // namespace

void WriteMessage(const ServerMessage& message, std::vector<std::byte>& bytes) {
  ByteWriter writer(bytes);
  writer.Put(message.kind);
  writer.Put(message.number);
  writer.Put(message.id);
  if (message.kind == MessageKind::kBegin) WriteJob(message.job, writer);
  if (message.kind == MessageKind::kDelta) WriteDelta(message, writer);
  if (message.kind == MessageKind::kFigures) writer.Put(message.figures);
}

ServerMessage ReadMessage(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  ServerMessage message;
  message.kind = reader.Take<MessageKind>();
  if (message.kind < MessageKind::kBegin || message.kind > MessageKind::kFigures)
    Throw(ErrorKind::kCorrupt, "a message of kind {}", static_cast<int32_t>(message.kind));
  message.number = reader.Take<int32_t>();
  message.id = reader.Take<PromptId>();
  if (message.kind == MessageKind::kBegin) message.job = ReadJob(reader);
  if (message.kind == MessageKind::kDelta) ReadDelta(reader, message);
  if (message.kind == MessageKind::kFigures) message.figures = reader.Take<ContextFigures>();
  if (!reader.is_at_end())
    Throw(ErrorKind::kCorrupt, "a message of kind {} is longer than what it says",
          static_cast<int32_t>(message.kind));
  return message;
}

}  // namespace wideload::runtime
