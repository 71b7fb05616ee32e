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

struct EventHead {
  PromptId id = -1;
  int64_t num_cached_tokens = 0;
  int32_t token = -1;
  FinishReason finish = FinishReason::kNone;
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

void CheckFinish(FinishReason finish) {
  if (finish < FinishReason::kNone || finish > FinishReason::kDeadline)
    Throw(ErrorKind::kCorrupt, "a prompt that ends for reason {}", static_cast<int32_t>(finish));
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
  CheckFinish(head.finish);
  delta.finish = head.finish;
  message.has_lease = head.has_lease != 0;
  message.group = head.group;
  delta.error = reader.TakeText();
  TakeInto(reader, delta.logprobs);
  for (auto left = reader.Take<uint64_t>(); left > 0; --left)
    TakeInto(reader, delta.prompt_logprobs.emplace_back());
  message.tables = ReadTables(reader);
}

void WriteEvents(std::span<const Event> events, ByteWriter& writer) {
  writer.Put(static_cast<uint64_t>(events.size()));
  for (const Event& event : events) {
    writer.Put(EventHead{.id = event.id,
                         .num_cached_tokens = event.num_cached_tokens,
                         .token = event.token,
                         .finish = event.finish});
    writer.PutText(event.error);
    writer.PutAll(std::span<const TokenLogprob>(event.logprobs));
  }
}

void ReadEvents(ByteReader& reader, std::vector<Event>& events) {
  for (auto left = reader.Take<uint64_t>(); left > 0; --left) {
    const auto head = reader.Take<EventHead>();
    CheckFinish(head.finish);
    Event& event = events.emplace_back();
    event.id = head.id;
    event.token = head.token;
    event.finish = head.finish;
    event.num_cached_tokens = head.num_cached_tokens;
    event.error = reader.TakeText();
    TakeInto(reader, event.logprobs);
  }
}

// Of Grammar::State, without a value that only some bytes have.
struct StateOnWire {
  int32_t first_edge = 0, num_edges = 0;
  int32_t first_call = 0, num_calls = 0;
  int32_t is_end = 0;
};

void WriteGrammar(const ServerMessage& message, ByteWriter& writer) {
  writer.Put(static_cast<uint64_t>(message.grammar != nullptr));
  if (message.grammar == nullptr) return;
  const grammar::Grammar& grammar = *message.grammar;
  std::vector<StateOnWire> states;
  states.reserve(grammar.states.size());
  for (const grammar::Grammar::State& state : grammar.states)
    states.push_back({.first_edge = state.first_edge,
                      .num_edges = state.num_edges,
                      .first_call = state.first_call,
                      .num_calls = state.num_calls,
                      .is_end = state.is_end});
  writer.Put(message.grammar_id);
  writer.PutAll(std::span<const StateOnWire>(states));
  writer.PutAll(std::span<const grammar::Grammar::Edge>(grammar.edges));
  writer.PutAll(std::span<const grammar::Grammar::Call>(grammar.calls));
  writer.Put(grammar.entry);
}

void ReadGrammar(ByteReader& reader, ServerMessage& message) {
  if (reader.Take<uint64_t>() == 0) return;
  const auto grammar = std::make_shared<grammar::Grammar>();
  message.grammar_id = reader.Take<uint64_t>();
  for (const StateOnWire& state : reader.TakeAll<StateOnWire>())
    grammar->states.push_back({.first_edge = state.first_edge,
                               .num_edges = state.num_edges,
                               .first_call = state.first_call,
                               .num_calls = state.num_calls,
                               .is_end = state.is_end != 0});
  TakeInto(reader, grammar->edges);
  TakeInto(reader, grammar->calls);
  grammar->entry = reader.Take<int32_t>();
  if (!grammar->is_sound()) Throw(ErrorKind::kCorrupt, "a grammar that names what it has not");
  message.grammar = grammar;
}

bool HasJob(MessageKind kind) {
  return kind == MessageKind::kBegin || kind == MessageKind::kGenerate;
}

bool HasDelta(MessageKind kind) {
  return kind == MessageKind::kDelta || kind == MessageKind::kGenerate;
}

}  // namespace

void WriteMessage(const ServerMessage& message, std::vector<std::byte>& bytes) {
  ByteWriter writer(bytes);
  writer.Put(message.kind);
  writer.Put(message.number);
  writer.Put(message.id);
  if (HasJob(message.kind)) {
    WriteJob(message.job, writer);
    WriteGrammar(message, writer);
  }
  if (HasDelta(message.kind)) WriteDelta(message, writer);
  if (message.kind == MessageKind::kFigures) writer.Put(message.figures);
  if (message.kind == MessageKind::kEvents) WriteEvents(message.events, writer);
  if (message.kind == MessageKind::kEngineFigures) writer.Put(message.engine);
}

ServerMessage ReadMessage(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  ServerMessage message;
  message.kind = reader.Take<MessageKind>();
  if (message.kind < MessageKind::kBegin || message.kind > MessageKind::kEngineFigures)
    Throw(ErrorKind::kCorrupt, "a message of kind {}", static_cast<int32_t>(message.kind));
  message.number = reader.Take<int32_t>();
  message.id = reader.Take<PromptId>();
  if (HasJob(message.kind)) {
    message.job = ReadJob(reader);
    ReadGrammar(reader, message);
  }
  if (HasDelta(message.kind)) ReadDelta(reader, message);
  if (message.kind == MessageKind::kFigures) message.figures = reader.Take<ContextFigures>();
  if (message.kind == MessageKind::kEvents) ReadEvents(reader, message.events);
  if (message.kind == MessageKind::kEngineFigures) message.engine = reader.Take<EngineFigures>();
  if (!reader.is_at_end())
    Throw(ErrorKind::kCorrupt, "a message of kind {} is longer than what it says",
          static_cast<int32_t>(message.kind));
  return message;
}

}  // namespace wideload::runtime
