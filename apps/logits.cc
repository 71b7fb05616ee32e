// `wideload logits`: the logits of every position of given token ids, written as safetensors. Needs
// no tokenizer.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "commands.h"
#include "file_flags.h"
#include "id_lists.h"
#include "interrupt.h"
#include "prompt_logits.h"
#include "tensor/safetensors.h"

namespace wideload::apps {
namespace {

struct LogitsCommand {
  static constexpr bool kCanUseGpus = true;
  EngineFlags engine;
  std::string input;
  std::string output;

  void Run(runtime::ProcessWorld* world);
};

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

void LogitsCommand::Run(runtime::ProcessWorld* world) {
  CheckFiles(engine, {Reads("--input-ids", input), Writes("--output", output)});
  const std::vector<std::vector<int32_t>> lists = ReadIdLists(input);
  CatchInterrupts();
  CheckWritable(output);
  const ListName name = [&](size_t i) { return fmt::format("{}: list {}", input, i); };
  Session session =
      StartSession(world, engine, [&](const Session& start, const runtime::EngineOptions& options) {
        const bool holds_rows = OutputPath(output).is_stream();
        return CheckPromptLogits(
            lists, name, start, options,
            {{"all rows", holds_rows ? RowBytes(lists, start.config.vocab_size) : 0, "--output"}});
      });
  LogitsFile file(output, lists, session.config.vocab_size);
  RunPromptLogits(session, lists, name,
                  [&](size_t list, int64_t position, std::span<const float> row) {
                    file.Write(list, position, row);
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
