// What `wideload bench` tells of a run: lines, JSON under trtllm-bench's keys, a page.
#pragma once

#include <string>

#include "base/json.h"
#include "runtime/bench_report.h"
#include "session.h"
#include "statistics/run_series.h"

namespace wideload::apps {

std::string ExchangeText(const Session& session, const runtime::ExchangeFigures& exchange);
std::string BalancingText(const Session& session, const rebalance::BalancerFigures& balancing);

Json ReportJson(const Session& session, const runtime::BenchFigures& figures, int64_t num_requests);
Json ExchangeJson(const Session& session, const runtime::ExchangeFigures& exchange);
Json BalancingJson(const Session& session, const rebalance::BalancerFigures& balancing);

// HTML of a run of `model`, its name; each line of `summary` is one of its notes.
std::string BenchPage(const Session& session, const std::string& model, const std::string& summary,
                      const statistics::RunSeries& series);

}  // namespace wideload::apps
