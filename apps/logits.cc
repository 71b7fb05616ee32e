// `wideload logits`: the logits of every position of given token ids, written as safetensors. Needs
// no tokenizer.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "checkpoint/memory_plan.h"
#include "commands.h"
#include "file_flags.h"
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

 private:
  int64_t Check(const std::vector<std::vector<int32_t>>& lists, const Session& session,
                const runtime::EngineOptions& options) const;
};

runtime::Request MakeRequest(const std::vector<int32_t>& ids) {
  runtime::Request request;
  request.prompt = ids;
  request.max_tokens = 0;
  request.prompt_logits = true;
  return request;
}

// The bytes of all rows.
uint64_t RowBytes(const std::vector<std::vector<int32_t>>& lists, int64_t vocab_size) {
  uint64_t num_rows = 0;
  for (const auto& ids : lists) num_rows += ids.size();
  return SaturatingProduct({num_rows, static_cast<uint64_t>(vocab_size), sizeof(float)});
}

// The file as it comes to be: its header is known from the lists, and each row is written to its
// place when it has been computed. A stream has no places: its rows are held until all are there.
class LogitsFile {
 public:
  LogitsFile(const std::string& path, const std::vector<std::vector<int32_t>>& lists,
             int64_t vocab_size)
      : writer_(path) {
    std::vector<TensorLayout> tensors;
    for (size_t i = 0; i < lists.size(); ++i)
      tensors.push_back({.name = fmt::format("logits.{}", i),
                         .dtype = DType::kF32,
                         .shape = {std::ssize(lists[i]), vocab_size}});
    const std::string header = SafetensorsHeader(tensors);
    writer_.Append(header);
    auto offset = std::ssize(header);
    for (const TensorLayout& tensor : tensors) {
      offsets_.push_back(offset);
      offset += tensor.shape.num_elements() * DTypeBytes(DType::kF32);
    }
    header_bytes_ = std::ssize(header);
    if (writer_.is_stream()) held_.resize(RowBytes(lists, vocab_size));
  }

  // Errors: kIo; kRunFailed naming list and position: NaN or infinity comes of weights that hold it
  // or overflow, and nobody should go on with it.
  void Write(size_t list, int64_t position, std::span<const float> row) {
    const auto bad =
        std::find_if(row.begin(), row.end(), [](float x) { return !std::isfinite(x); });
    if (bad != row.end())
      Throw(ErrorKind::kRunFailed,
            "list {}, position {}: the logit of token {} is {}; nothing was written "
            "(--check-weights looks for such weights)",
            list, position, bad - row.begin(), *bad);
    const int64_t offset = offsets_[list] + position * static_cast<int64_t>(row.size_bytes());
    if (writer_.is_stream())
      std::memcpy(held_.data() + offset - header_bytes_, row.data(), row.size_bytes());
    else
      writer_.WriteAt(offset, std::as_bytes(row));
  }
  void Commit() {
    writer_.Append(held_);
    writer_.Commit();
  }

 private:
  WholeFileWriter writer_;
  int64_t header_bytes_ = 0;
  std::vector<int64_t> offsets_;  // of each tensor in the file
  std::string held_;              // the rows of a stream
};

// Refuses what the engine would refuse, and rows of logits that the memory cannot hold. Returns the
// tokens of the longest list.
int64_t LogitsCommand::Check(const std::vector<std::vector<int32_t>>& lists, const Session& session,
                             const runtime::EngineOptions& options) const {
  size_t longest = 0;
  for (size_t i = 0; i < lists.size(); ++i) {
    RefuseInvalid(MakeRequest(lists[i]), session, options, fmt::format("{}: list {}", input, i));
    longest = std::max(longest, lists[i].size());
  }
  const checkpoint::MemoryPart parts[] = {
      {"logits of an iteration",
       SaturatingProduct({static_cast<uint64_t>(options.num_ranks()),
                          static_cast<uint64_t>(options.max_num_tokens),
                          static_cast<uint64_t>(session.config.vocab_size), sizeof(float)}),
       "--max-num-tokens"},
      {"all rows", OutputPath(output).is_stream() ? RowBytes(lists, session.config.vocab_size) : 0,
       "--output"}};
  checkpoint::CheckMemory(parts, AvailableMemoryBytes());
  return static_cast<int64_t>(longest);
}

void LogitsCommand::Run(runtime::ProcessWorld* world) {
  CheckFiles(engine, {Reads("--input-ids", input), Writes("--output", output)});
  const std::vector<std::vector<int32_t>> lists = ReadIdLists(input);
  CatchInterrupts();
  CheckWritable(output);
  Session session =
      StartSession(world, engine, [&](const Session& start, const runtime::EngineOptions& options) {
        return Check(lists, start, options);
      });
  LogitsFile file(output, lists, session.config.vocab_size);
  session.engine->SetLogitsSink(
      [&](runtime::RequestId id, int64_t position, std::span<const float> row) {
        file.Write(static_cast<size_t>(id), position, row);
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
  file.Commit();
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
