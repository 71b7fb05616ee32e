// `wideload logits`: the logits of every position of given token ids, written as safetensors. Needs
// no tokenizer.
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "commands.h"
#include "id_lists.h"
#include "interrupt.h"
#include "session.h"
#include "tensor/safetensors.h"

namespace wideload::apps {
namespace {

struct LogitsCommand {
  EngineFlags engine;
  std::string input;
  std::string output;

  void Run(runtime::ProcessWorld* world);
};

runtime::Request MakeRequest(const std::vector<int32_t>& ids) {
  runtime::Request request;
  request.prompt = ids;
  request.max_tokens = 0;
  request.prompt_logits = true;
  return request;
}

// Errors: kRunFailed naming list and position: NaN or infinity comes of weights that hold it or
// overflow, and nobody should go on with it.
void RefuseNonFinite(const Buffer& logits, int64_t vocab, size_t list) {
  const auto* const values = reinterpret_cast<const float*>(logits.data());
  const int64_t count = logits.num_bytes() / DTypeBytes(DType::kF32);
  for (int64_t i = 0; i < count; ++i)
    if (!std::isfinite(values[i]))
      Throw(ErrorKind::kRunFailed,
            "list {}, position {}: the logit of token {} is {}; nothing was written "
            "(--check-weights looks for such weights)",
            list, i / vocab, i % vocab, values[i]);
}

void LogitsCommand::Run(runtime::ProcessWorld* world) {
  const std::vector<std::vector<int32_t>> lists = ReadIdLists(input);
  CatchInterrupts();
  CheckWritable(output);
  Session session =
      StartSession(world, engine, [&](const Session& start, const runtime::EngineOptions& options) {
        for (size_t i = 0; i < lists.size(); ++i)
          RefuseInvalid(MakeRequest(lists[i]), start, options,
                        fmt::format("{}: list {}", input, i));
      });
  const int64_t vocab = session.config.vocab_size;
  std::vector<Buffer> logits;
  for (const auto& ids : lists)
    logits.emplace_back(DType::kF32, Shape{static_cast<int64_t>(ids.size()), vocab});
  session.engine->SetLogitsSink([&](runtime::RequestId id, int64_t position,
                                    std::span<const float> row) {
    std::memcpy(
        logits[static_cast<size_t>(id)].data() + static_cast<size_t>(position) * row.size_bytes(),
        row.data(), row.size_bytes());
  });
  for (const auto& ids : lists) session.engine->Submit(MakeRequest(ids));
  RunRecorded(session, [&] {
    while (!session.engine->idle()) {
      for (const runtime::Event& event : session.engine->Step())
        if (event.finish == runtime::FinishReason::kError)
          Throw(ErrorKind::kRunFailed, "{}: list {}: {}", input, event.id, event.error);
      if (InterruptSignal() != 0) Throw(ErrorKind::kRunFailed, "interrupted; nothing was written");
    }
  });
  for (size_t i = 0; i < lists.size(); ++i) RefuseNonFinite(logits[i], vocab, i);
  std::vector<std::pair<std::string, TensorView>> tensors;
  for (size_t i = 0; i < lists.size(); ++i)
    tensors.emplace_back(
        fmt::format("logits.{}", i),
        logits[i].View(DType::kF32, {static_cast<int64_t>(lists[i].size()), vocab}));
  WriteSafetensors(output, tensors);
  LogInfo("{}: logits of {} lists", output, lists.size());
}

}  // namespace

void AddLogits(Command program) {
  const Command command =
      program.Subcommand("logits", "logits of every position of given token ids");
  LogitsCommand& logits = RunsOnRanks<LogitsCommand>(command);
  AddEngineFlags(command, logits.engine);
  command.Add("--input-ids", logits.input, "JSON: list of lists of token ids; - is standard input")
      .Required();
  command
      .Add("--output", logits.output, "safetensors file: logits.0, logits.1, ... [T, vocab] fp32")
      .Required();
}

}  // namespace wideload::apps
