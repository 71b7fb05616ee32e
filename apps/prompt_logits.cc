#include "prompt_logits.h"

#include <algorithm>

#include "base/error.h"
#include "base/memory.h"
#include "interrupt.h"

namespace wideload::apps {
namespace {

runtime::Request PromptLogitsRequest(const std::vector<int32_t>& ids) {
  runtime::Request request;
  request.prompt = ids;
  request.max_tokens = 0;
  request.prompt_logits = true;
  return request;
}

}  // namespace

int64_t CheckPromptLogits(std::span<const std::vector<int32_t>> lists, const ListName& name,
                          const Session& session, const runtime::EngineOptions& options,
                          std::vector<checkpoint::MemoryPart> others) {
  size_t longest = 0;
  for (size_t i = 0; i < lists.size(); ++i) {
    RefuseInvalid(PromptLogitsRequest(lists[i]), session, options, name(i));
    longest = std::max(longest, lists[i].size());
  }
  others.insert(
      others.begin(),
      {"logits of an iteration",
       SaturatingProduct({static_cast<uint64_t>(options.num_ranks()),
                          static_cast<uint64_t>(options.max_num_tokens),
                          static_cast<uint64_t>(session.config.vocab_size), sizeof(float)}),
       "--max-num-tokens"});
  checkpoint::CheckMemory(others, AvailableMemoryBytes());
  return static_cast<int64_t>(longest);
}

void RunPromptLogits(Session& session, std::span<const std::vector<int32_t>> lists,
                     const ListName& name, const PromptLogitsSink& sink) {
  session.engine->SetLogitsSink(
      [&](runtime::RequestId id, int64_t position, std::span<const float> logits) {
        sink(static_cast<size_t>(id), position, logits);
      });
  for (const auto& ids : lists) session.engine->Submit(PromptLogitsRequest(ids));
  RunRecorded(session, [&] {
    while (!session.engine->idle()) {
      for (const runtime::Event& event : session.engine->Step())
        if (event.finish == runtime::FinishReason::kError)
          Throw(ErrorKind::kRunFailed, "{}: {}", name(static_cast<size_t>(event.id)), event.error);
      if (InterruptSignal() != 0) Throw(ErrorKind::kRunFailed, "interrupted; nothing was written");
    }
  });
  session.engine->SetLogitsSink({});
}

}  // namespace wideload::apps
