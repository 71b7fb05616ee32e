// What servers say to each other, of prompts and of blocks: right messages of which the input
// changes a byte, and arbitrary bytes. What is read can be written again and says the same.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>
#include <vector>

#include "base/error.h"
#include "grammar/json_schema.h"
#include "runtime/servers/block_request.h"
#include "runtime/servers/server_messages.h"

namespace {

using namespace wideload;           // NOLINT(google-build-using-namespace): a program of one file
using namespace wideload::runtime;  // NOLINT(google-build-using-namespace)

ServerMessage RightMessage(uint8_t choice) {
  constexpr MessageKind kKinds[] = {MessageKind::kBegin, MessageKind::kDelta,
                                    MessageKind::kGenerate, MessageKind::kEvents};
  ServerMessage message{.kind = kKinds[choice % std::size(kKinds)],
                        .id = 5,
                        .has_lease = true,
                        .tables = {{.blocks = {1, 2, 3}, .num_given_back = 1}}};
  message.job.request.prompt = {1, 2, 3};
  message.job.request.cache_salt = "salt";
  message.job.request.first_allowed = {7};
  message.grammar = std::make_shared<const grammar::Grammar>(grammar::ChoiceGrammar({"ab", "c"}));
  message.delta.logprobs = {{.id = 1, .logprob = -1}};
  message.delta.prompt_logprobs = {{}, {{.id = 2, .logprob = -2}}};
  message.delta.error = "why";
  message.events = {{.id = 3, .token = 4, .logprobs = {{.id = 4, .logprob = -1}}},
                    {.id = 5, .finish = FinishReason::kError, .error = "why"}};
  return message;
}

void Read(const std::vector<std::byte>& bytes) {
  try {
    const ServerMessage message = ReadMessage(bytes);
    std::vector<std::byte> again;
    WriteMessage(message, again);
    ReadMessage(again);
  } catch (const Error&) {
    // a refusal is an answer
  }
}

// Blocks of two classes, of 9 and 5. What is read is within them.
void ReadRequest(const std::vector<std::byte>& bytes) {
  const BlockLimits limits{.num_layers = 4, .num_micro_batches = 2, .num_blocks = {9, 5}};
  try {
    const BlockRequest request = ReadBlockRequest(bytes, limits);
    for (size_t c = 0; c < request.blocks.size(); ++c)
      for (const int32_t block : request.blocks[c])
        WIDELOAD_CHECK(block >= 0 && block < limits.num_blocks[c], "block {} was let through",
                       block);
    const parallel::Shard layers = request.reader.layers;
    WIDELOAD_CHECK(layers.begin >= 0 && layers.size() >= 0 && layers.end <= limits.num_layers,
                   "layers {} to {} were let through", layers.begin, layers.end);
    WIDELOAD_CHECK(request.micro_batch >= 0 && request.micro_batch < limits.num_micro_batches,
                   "micro-batch {} was let through", request.micro_batch);
    std::vector<std::byte> again;
    WriteBlockRequest(request, again);
    ReadBlockRequest(again, limits);
  } catch (const Error&) {
    // a refusal is an answer
  }
}

// Changes bytes as the input says.
void Change(std::vector<std::byte>& bytes, const uint8_t* data, size_t size) {
  for (size_t i = 1; i + 2 < size; i += 3)
    bytes[(data[i] + size_t{256} * data[i + 1]) % bytes.size()] = std::byte{data[i + 2]};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<std::byte> bytes(size);
  if (size > 0) std::memcpy(bytes.data(), data, size);
  Read(bytes);
  ReadRequest(bytes);
  if (size < 4) return 0;
  WriteMessage(RightMessage(data[0]), bytes);
  Change(bytes, data, size);
  Read(bytes);
  WriteBlockRequest({.reader = {.layers = {.begin = 1, .end = 3}, .heads = {.rank = 1, .size = 2}},
                     .micro_batch = 1,
                     .blocks = {{0, 8, 3}, {4}}},
                    bytes);
  Change(bytes, data, size);
  ReadRequest(bytes);
  return 0;
}
