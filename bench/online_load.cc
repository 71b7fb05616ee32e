#include "online_load.h"

#include <fmt/format.h>

#include <map>

#include "base/error.h"
#include "dataset.h"
#include "tokenizer/tokenizer.h"

namespace wideload {
namespace {

constexpr const char* kDomains[] = {"docs_en", "prose_en", "dictionary_en", "c",      "python",
                                    "german",  "french",   "japanese",      "chinese"};

// One domain's requests on their way through the engine.
class DomainRun {
 public:
  DomainRun(runtime::Engine& engine, const OnlineLoad& load, size_t domain)
      : engine_(engine),
        load_(load),
        domain_(domain),
        ids_(static_cast<size_t>(load.num_requests)) {}

  void Run(const std::function<void(size_t)>& on_iteration) {
    for (int64_t iterations = 0; iterations < load_.min_iterations || !IsOver(); ++iterations) {
      if (IsEmpty()) return;
      while (next_ < ids_.size() && std::ssize(running_) < load_.concurrency) Submit();
      for (const runtime::Event& event : engine_.Step()) Take(event);
      on_iteration(domain_);
    }
    Cancel();
  }
  std::vector<std::vector<int32_t>> TakeIds() { return std::move(ids_); }

 private:
  bool IsEmpty() const { return next_ == ids_.size() && running_.empty(); }
  bool IsOver() const {
    return next_ == ids_.size() && 2 * std::ssize(running_) < load_.concurrency;
  }

  void Submit() {
    const Domain& domain = load_.domains[domain_];
    runtime::Request request;
    request.prompt = domain.prompts[next_ % domain.prompts.size()];
    request.max_tokens = load_.max_tokens;
    request.sampling = {.temperature = 0.7, .top_k = 40, .top_p = 0.9, .seed = 1};
    request.index = domain_ * ids_.size() + next_;
    running_[engine_.Submit(std::move(request))] = next_++;
  }

  void Take(const runtime::Event& event) {
    if (event.finish == runtime::FinishReason::kError)
      Throw(ErrorKind::kRunFailed, "{}: {}", load_.domains[domain_].name, event.error);
    const auto found = running_.find(event.id);
    if (found == running_.end()) return;
    if (event.token >= 0) ids_[found->second].push_back(event.token);
    if (event.finish != runtime::FinishReason::kNone) running_.erase(found);
  }

  void Cancel() {
    for (const auto& [id, request] : running_) engine_.Cancel(id);
    running_.clear();
  }

  runtime::Engine& engine_;
  const OnlineLoad& load_;
  size_t domain_;
  std::vector<std::vector<int32_t>> ids_;
  std::map<runtime::RequestId, size_t> running_;
  size_t next_ = 0;
};

}  // namespace

OnlineLoad ReadOnlineLoad(const std::string& folder) {
  const auto tokenizer = tokenizer::Tokenizer::FromFile(folder + "/tokenizer.json");
  OnlineLoad load;
  for (const char* name : kDomains) {
    Domain& domain = load.domains.emplace_back();
    domain.name = name;
    for (apps::DatasetRow& row :
         apps::ReadDataset(fmt::format("{}/prompts/{}.jsonl", folder, name), &tokenizer, {}))
      domain.prompts.push_back(std::move(row.ids));
  }
  return load;
}

std::vector<std::vector<int32_t>> Serve(runtime::Engine& engine, const OnlineLoad& load,
                                        const std::function<void(size_t domain)>& on_iteration) {
  std::vector<std::vector<int32_t>> ids;
  for (size_t d = 0; d < load.domains.size(); ++d) {
    DomainRun run(engine, load, d);
    run.Run(on_iteration);
    for (std::vector<int32_t>& request : run.TakeIds()) ids.push_back(std::move(request));
  }
  return ids;
}

}  // namespace wideload
