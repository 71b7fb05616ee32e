#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#include "eplb/scenario_planner.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include "base/error.h"
#include "eplb/random.h"
#include "eplb/component_plan.h"
#include "eplb/plan_search.h"

namespace wideload::eplb {


static double Env(const char* n, double d) { const char* v = getenv(n); return v ? atof(v) : d; }

// Scenarios to search with: the recorded ones and variations of them.
static Scenarios Vary(const Scenarios& recorded, uint64_t seed) {
  const int target = (int)Env("AUG_N", 32);
  Scenarios out{recorded.num_experts, {}, {}};
  const int n = recorded.size();
  const int keep = std::min(n, (int)Env("KEEP", 48));
  for (int i = 0; i < keep; ++i) {
    const int k = i * n / keep;
    std::vector<double> w(recorded.At(k).begin(), recorded.At(k).end());
    double sum = std::accumulate(w.begin(), w.end(), 0.0);
    if (sum <= 0) continue;
    for (double& x : w) x /= sum;
    out.Add(w, recorded.weights[k]);
  }
  const Scenarios base = out;
  const int m = base.size();
  if (m == 0) return out;
  Random random(seed);
  const double h = Env("AUG_H", 0.5), s = Env("AUG_S", 0.1), wt = Env("AUG_W", 1.0);
  const int nb = (int)Env("AUG_NB", 4);
  for (int j = 0; m + j < target; ++j) {
    const int k = j % m;
    std::vector<std::pair<double, int>> near;
    for (int i = 0; i < m; ++i) {
      double d = 0;
      for (int e = 0; e < base.num_experts; ++e) d += std::abs(base.At(i)[e] - base.At(k)[e]);
      near.emplace_back(d, i);
    }
    std::sort(near.begin(), near.end());
    const int pick = std::min(m, nb);
    const int a = near[random.Below(pick)].second, b = near[random.Below(pick)].second;
    std::vector<double> w(base.num_experts);
    for (int e = 0; e < base.num_experts; ++e) {
      const double x = base.At(k)[e] + h * (base.At(a)[e] - base.At(b)[e]);
      w[e] = std::max(x, 0.2 * base.At(k)[e]) * std::exp(s * random.Normal());
    }
    out.Add(w, base.weights[k] * wt);
  }
  return out;
}

Placement PlanPlacement(const Scenarios& scenarios, const PlanOptions& options) {
  if (scenarios.size() == 0) Throw(ErrorKind::kInvalid, "scenario plan: no scenario is given");
  const Placement start =
      ComponentPlan(scenarios.Mean(), options.num_slots, options.num_ranks);
  if (options.max_moves == 0) return start;
  const Scenarios varied = Vary(scenarios, options.seed);
  PlanSearch search(varied, start, {.max_moves = options.max_moves, .max_solves=(int64_t)Env("SOLVES",1e9),.seed = options.seed});
  search.Run();
  return search.placement();
}

}  // namespace wideload::eplb
