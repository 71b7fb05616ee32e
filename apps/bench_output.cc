#include "bench_output.h"

#include <sys/resource.h>

#include <algorithm>

#include "base/cpu_info.h"
#include "base/memory.h"
#include "kv/paged_cache.h"
#include "statistics/html_run_report.h"
#include "version.h"

namespace wideload::apps {
namespace {

Json PercentilesJson(const runtime::Percentiles& p) {
  return {{"p50", p.p50},         {"p90", p.p90},         {"p95", p.p95},        {"p99", p.p99},
          {"minimum", p.minimum}, {"maximum", p.maximum}, {"average", p.average}};
}

// Whether the split goes by the counts of the iteration before.
bool IsMicrobatch(const Session& session) {
  return session.engine->options().moe_mode == moe::MoeMode::kMicrobatch;
}

}  // namespace

// Sums over all ranks; rounds are the same on each.
Json ExchangeJson(const Session& session, const runtime::ExchangeFigures& exchange) {
  Json waits = Json::object();
  Json us = Json::object();
  for (int kind = 0; kind < exchange::kNumWaitKinds; ++kind) {
    const auto wait_kind = static_cast<exchange::WaitKind>(kind);
    waits[runtime::WaitKindName(wait_kind)] = exchange.WaitsPerIteration(wait_kind);
    us[runtime::WaitKindName(wait_kind)] = exchange.MicrosecondsPerWait(wait_kind);
  }
  Json json = {{"iterations", exchange.num_iterations},
               {"rounds", exchange.num_rounds},
               {"rows", exchange.num_rows},
               {"returns", exchange.num_returns},
               {"waits_per_iteration", waits},
               {"us_per_wait", us},
               {"imbalance_of_computed_rows", exchange.MeanImbalance()},
               {"balancedness_of_computed_rows", exchange.MeanBalancedness()}};
  if (IsMicrobatch(session)) json["imbalance_if_counts_were_known"] = exchange.MeanKnownImbalance();
  return json;
}

Json BalancingJson(const Session& session, const rebalance::BalancerFigures& balancing) {
  return {{"mode", rebalance::ModeName(session.engine->options().rebalance.mode)},
          {"changes", balancing.num_changes},
          {"layers_changed", balancing.num_layers},
          {"fetched_slots", balancing.fetched_slots},
          {"fetched_bytes", balancing.fetched_slots * session.bytes.expert},
          {"late_plans", balancing.num_late},
          {"planning_cpu_s", static_cast<double>(balancing.planning_ns) * 1e-9}};
}

std::string BalancingText(const Session& session, const rebalance::BalancerFigures& balancing) {
  const int64_t bytes = balancing.fetched_slots * session.bytes.expert;
  return fmt::format("online balancer: {} changes of {} layers, {} slots fetched ({})",
                     balancing.num_changes, balancing.num_layers, balancing.fetched_slots,
                     FormatBytes(static_cast<uint64_t>(bytes)));
}

std::string ExchangeText(const Session& session, const runtime::ExchangeFigures& exchange) {
  std::string waits;
  for (int kind = 0; kind < exchange::kNumWaitKinds; ++kind) {
    const auto wait_kind = static_cast<exchange::WaitKind>(kind);
    waits += fmt::format("{}{:.1f} for {} of {:.1f} us", waits.empty() ? "" : ", ",
                         exchange.WaitsPerIteration(wait_kind), runtime::WaitKindName(wait_kind),
                         exchange.MicrosecondsPerWait(wait_kind));
  }
  std::string text = fmt::format(
      "exchange: {} rounds, {} rows out, {} back; waits per iteration: {}; imbalance of computed "
      "rows {:.2f}",
      exchange.num_rounds, exchange.num_rows, exchange.num_returns, waits,
      exchange.MeanImbalance());
  if (IsMicrobatch(session))
    text += fmt::format(", {:.2f} if the split had known the counts of its own iteration",
                        exchange.MeanKnownImbalance());
  return text;
}

Json ReportJson(const Session& session, const runtime::BenchFigures& figures,
                int64_t num_requests) {
  const runtime::EngineOptions& options = session.engine->options();
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return {{"engine",
           {{"model", session.config.architecture},
            {"model_path", session.folder},
            {"version", kVersion},
            {"backend", "wideload"},
            {"dtype", DTypeName(session.config.dtype)},
            {"kv_cache_dtype", DTypeName(compute::PrecisionOf(session.kernels).kv_cache)},
            {"kernels", KernelSetName(session.kernels)},
            {"quantization", nullptr}}},
          {"machine",
           {{"name", ThisCpu().brand},
            {"cores", NumAllowedCpus()},
            {"max_resident_bytes", int64_t{1024} * usage.ru_maxrss}}},
          {"world_info",
           {{"tp_size", options.layout.tp},
            {"pp_size", options.layout.pp},
            {"cp_size", options.layout.cp},
            {"ep_size", options.layout.moe_ep},
            {"moe_tp_size", options.layout.moe_tp},
            {"world_size", options.num_ranks()},
            {"threads_per_rank", options.threads_per_rank},
            {"max_batch_size", options.max_batch_size},
            {"max_num_tokens", options.max_num_tokens},
            {"scheduling_policy", "recompute on preemption"},
            {"kv_cache_percentage", nullptr},  // the cache is given in tokens, not as a share
            {"kv_cache_tokens", options.num_micro_batches * options.KvTokens()},
            {"issue_rate", nullptr}}},  // --concurrency requests are in flight
          {"request_info",
           {{"num_requests", num_requests},
            {"avg_num_concurrent_requests", figures.average_concurrent_requests},
            {"avg_input_length", figures.average_input_length},
            {"avg_output_length", figures.average_output_length}}},
          {"performance",
           {{"total_latency_ms", figures.total_latency_ms},
            {"avg_request_latency_ms", figures.latency_ms.average},
            {"request_throughput_req_s", figures.request_throughput_req_s},
            {"system_output_throughput_tok_s", figures.output_throughput_tok_s},
            {"system_total_throughput_tok_s", figures.total_throughput_tok_s},
            {"output_throughput_per_user_tok_s", figures.output_throughput_per_user_tok_s},
            {"output_throughput_per_gpu_tok_s",  // a rank takes a GPU's place
             figures.output_throughput_tok_s / options.num_ranks()},
            {"request_latency_percentiles_ms", PercentilesJson(figures.latency_ms)}}},
          {"streaming_metrics",
           {{"token_output_speed_tok_s", figures.token_speed_tok_s.average},
            {"gen_tps_percentiles", PercentilesJson(figures.token_speed_tok_s)},
            {"avg_ttft_ms", figures.time_to_first_token_ms.average},
            {"ttft_percentiles", PercentilesJson(figures.time_to_first_token_ms)},
            {"avg_tpot_ms", figures.time_per_output_token_ms.average},
            {"tpot_percentiles", PercentilesJson(figures.time_per_output_token_ms)}}},
          {"decoding_stats", nullptr},  // no speculative decoding
          {"dataset",
           {{"isl_stats", PercentilesJson(figures.input_length)},
            {"osl_stats", PercentilesJson(figures.output_length)}}}};
}

std::string BenchPage(const Session& session, const std::string& model, const std::string& summary,
                      const statistics::RunSeries& series) {
  const runtime::EngineOptions& options = session.engine->options();
  statistics::HtmlRunReportOptions page{
      .title = fmt::format("A run of {}", model),
      .notes = {fmt::format("{}, {} ranks x {} threads, kernels {}, wideload {}", session.folder,
                            options.num_ranks(), options.threads_per_rank,
                            KernelSetName(session.kernels), kVersion)},
      .layers = session.model->spec().moe.layers};
  if (!page.layers.empty())
    page.notes.push_back(fmt::format("{} slots for {} experts, online balancer: {}",
                                     options.num_slots, session.config.num_experts,
                                     session.engine->balancer() != nullptr
                                         ? rebalance::ModeName(options.rebalance.mode)
                                         : "off"));
  for (size_t at = 0; at < summary.size();) {
    const size_t end = std::min(summary.find('\n', at), summary.size());
    page.notes.push_back(summary.substr(at, end - at));
    at = end + 1;
  }
  return FormatHtmlRunReport(series, page);
}

}  // namespace wideload::apps
