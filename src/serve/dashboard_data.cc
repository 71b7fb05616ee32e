#include "serve/dashboard_data.h"

#include <sys/statvfs.h>

#include <chrono>
#include <fstream>

#include "base/json.h"
#include "base/memory.h"
#include "rebalance/online_options.h"

namespace wideload::serve {
namespace {

double SecondsSince(std::chrono::steady_clock::time_point time) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - time).count();
}

const char* SplitName(eplb::SplitMode split) {
  switch (split) {
    case eplb::SplitMode::kOptimal:
      return "optimal";
    case eplb::SplitMode::kRoundRobin:
      return "round_robin";
    case eplb::SplitMode::kFirst:
      break;
  }
  return "first";
}

// Of the row `name` of /proc/meminfo; 0 where there is none.
int64_t MemoryRow(const std::string& name) {
  std::ifstream file("/proc/meminfo");
  std::string row;
  for (int64_t value = 0; file >> row >> value; file.ignore(256, '\n'))
    if (row == name + ":") return value * 1024;
  return 0;
}

Json HostJson(const ServedModel& model) {
  Json parts = Json::object();
  for (const checkpoint::MemoryPart& part : model.memory) parts[part.name] = part.bytes;
  struct statvfs shm {};
  const bool has_shm = ::statvfs("/dev/shm", &shm) == 0;
  const auto bytes = [&](fsblkcnt_t blocks) {
    return has_shm ? static_cast<int64_t>(blocks) * static_cast<int64_t>(shm.f_frsize) : 0;
  };
  return {{"memory_bytes", MemoryRow("MemTotal")},
          {"memory_available_bytes", MemoryRow("MemAvailable")},
          {"resident_bytes", ResidentBytes()},
          {"parts", std::move(parts)},
          {"shm_bytes", bytes(shm.f_blocks)},
          {"shm_used_bytes", bytes(shm.f_blocks - shm.f_bfree)}};
}

// Rows of a table whose columns the page knows: smaller than an object each.
Json StretchesJson(const std::vector<statistics::Stretch>& stretches) {
  Json rows = Json::array();
  for (const statistics::Stretch& s : stretches)
    rows.push_back({s.first_iteration, s.num_iterations, s.seconds, s.prompt_tokens,
                    s.generated_tokens, s.fetched_slots, s.MeanImbalance(), s.highest_imbalance,
                    s.MeanBalancedness()});
  return {{"columns",
           {"first_iteration", "iterations", "seconds", "prompt_tokens", "generated_tokens",
            "fetched_slots", "imbalance", "highest_imbalance", "balancedness"}},
          {"rows", std::move(rows)}};
}

Json BalancerJson(const runtime::EngineCourse& course, const ServedModel& model) {
  const rebalance::BalancerFigures& figures = course.balancer;
  return {{"mode", rebalance::ModeName(model.engine.rebalance.mode)},
          {"generation", figures.num_changes},
          {"changed_iteration", course.changed_iteration},
          {"seconds_since_change", SecondsSince(course.changed)},
          {"changed_layers", figures.num_layers},
          {"fetched_slots", figures.fetched_slots},
          {"fetched_bytes", figures.fetched_slots * model.expert_bytes},
          {"fetched_slots_by_layer", course.fetched_slots},
          {"late_plans", figures.num_late},
          {"skipped_iterations", figures.num_skipped},
          {"planning_seconds", static_cast<double>(figures.planning_ns) * 1e-9}};
}

Json ExchangeJson(const runtime::EngineCourse& course) {
  const runtime::ExchangeFigures& exchange = course.exchange;
  Json waits = Json::object();
  for (size_t kind = 0; kind < exchange.waits.size(); ++kind)
    waits[runtime::WaitKindName(static_cast<exchange::WaitKind>(kind))] = {
        {"count", exchange.waits[kind].num_waits},
        {"seconds", static_cast<double>(exchange.waits[kind].total_ns) * 1e-9}};
  return {{"rounds", exchange.num_rounds},    {"rows", exchange.num_rows},
          {"returns", exchange.num_returns},  {"rows_by_rank", course.sent_rows},
          {"rows_by_host", course.host_rows}, {"rows_on_rank", course.own_rows},
          {"row_bytes", course.row_bytes},    {"return_row_bytes", course.return_row_bytes},
          {"waits", std::move(waits)}};
}

Json RanksJson(const runtime::EngineCourse& course) {
  Json rows = Json::array();
  for (const runtime::RankLife& rank : course.lives)
    rows.push_back({rank.host, rank.place.pp, rank.place.dp, rank.place.tp, rank.place.cp,
                    rank.place.moe_ep, rank.place.moe_tp, SecondsSince(rank.ended)});
  return {{"columns",
           {"host", "stage", "group", "tensor", "context", "experts", "expert_part",
            "seconds_since_iteration"}},
          {"rows", std::move(rows)},
          {"seconds_since_seen", SecondsSince(course.seen)}};
}

Json RequestsJson(const DashboardSource& source) {
  const runtime::EngineFigures figures = source.runner.AllFigures();
  return {{"open", source.num_open},        {"running", figures.num_running},
          {"waiting", figures.num_waiting}, {"preemptions", figures.num_preemptions},
          {"kv_usage", figures.kv_usage},   {"prefix_hit_rate", figures.prefixes.hit_rate()}};
}

// Of each server that generates; empty where it is one engine that computes prompts, too.
Json GenerationJson(const runtime::JobRunner& runner) {
  Json rows = Json::array();
  for (size_t i = 0; runner.context() != nullptr && i < runner.num_engines(); ++i) {
    const runtime::EngineFigures figures = runner.figures(i);
    rows.push_back({runner.is_running(i), runner.monitor(i) != nullptr, figures.num_running,
                    figures.num_waiting, figures.num_iterations, figures.kv_usage});
  }
  return {{"columns", {"up", "watched", "running", "waiting", "iterations", "kv_usage"}},
          {"rows", std::move(rows)}};
}

}  // namespace

std::string DashboardDataJson(const DashboardSource& source) {
  const runtime::EngineCourse course = source.runner.monitor(source.engine)->course();
  const runtime::EngineOptions& options = source.model.engine;
  const statistics::Stretch& total = course.total;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return DumpJson({{"schema_version", 1},
                   {"time", std::chrono::duration<double>(now).count()},
                   {"model", source.model.name},
                   {"version", source.version},
                   {"status", source.is_draining ? "draining" : "serving"},
                   {"ranks", course.num_ranks},
                   {"stages", course.num_stages},
                   {"expert_ranks", options.layout.moe_ep},
                   {"split", SplitName(options.split)},
                   {"layers", course.layers},
                   {"places", RanksJson(course)},
                   {"iterations", total.num_iterations},
                   {"prompt_tokens", total.prompt_tokens},
                   {"generated_tokens", total.generated_tokens},
                   {"busy_seconds", total.seconds},
                   {"idle_seconds", SecondsSince(course.now)},
                   {"rank_rows", course.computed_rows},
                   {"imbalance_sums", course.imbalance_sums},
                   {"balancedness_sums", course.balancedness_sums},
                   {"stretches", StretchesJson(course.stretches)},
                   {"requests", RequestsJson(source)},
                   {"generation_server", source.engine},
                   {"generation_servers", GenerationJson(source.runner)},
                   {"balancer", BalancerJson(course, source.model)},
                   {"exchange", ExchangeJson(course)},
                   {"host", HostJson(source.model)}});
}

std::string DashboardExpertsJson(const runtime::EngineMonitor& monitor) {
  const runtime::EngineExperts experts = monitor.experts();
  Json slots = Json::array();
  for (const eplb::Placement& placement : experts.placements) {
    Json& layer = slots.emplace_back(Json::array());
    for (const ExpertId expert : placement.slot_expert) layer.push_back(expert.value);
  }
  return DumpJson({{"schema_version", 1},
                   {"generation", experts.generation},
                   {"experts", experts.num_experts},
                   {"expert_ranks", experts.num_ranks},
                   {"routed", experts.routed},
                   {"slots", std::move(slots)},
                   {"since", experts.since}});
}

}  // namespace wideload::serve
