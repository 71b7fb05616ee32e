// Kernels against what bounds them, measured in the same run: multiply-adds in registers alone, or
// plain reading of memory. Usage: bench_kernels [--part NAME...] [--kernels NAME...] [--threads N]
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>

#include "base/error.h"
#include "core_bounds.h"
#include "kernels_parts.h"

namespace wideload::bench {
namespace {

int Run(int argc, char** argv) {
  CLI::App app("kernels against what bounds them");
  std::vector<std::string> parts = {"gemm", "formats", "experts", "attention"};
  std::vector<std::string> kernels;
  KernelsOptions options;
  app.add_option("--part", parts)->check(CLI::IsMember(parts));
  app.add_option("--kernels", kernels, "kernel sets (default: all that this machine can run)");
  app.add_option("--threads", options.threads)->check(CLI::PositiveNumber);
  app.add_option("--repetitions", options.repetitions)->check(CLI::PositiveNumber);
  app.add_option("--n", options.n, "output features of the weights of formats")
      ->check(CLI::PositiveNumber);
  app.add_option("--k", options.k, "their input features, a multiple of 32")
      ->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  if (options.k % 32 != 0) Throw(ErrorKind::kInvalid, "--k is {}, not a multiple of 32", options.k);
  for (const std::string& name : kernels) options.kernels.push_back(compute::ParseKernelSet(name));
  if (kernels.empty()) {
    const auto supported = compute::SupportedKernelSets();
    options.kernels.assign(supported.begin(), supported.end());
  }
  PrintMachine(options.threads);
  fmt::print("{} interleaved repetitions, medians\n", options.repetitions);
  const auto wants = [&](const char* part) { return std::ranges::count(parts, part) > 0; };
  if (wants("gemm")) MeasureGemm(options);
  if (wants("formats")) MeasureFormats(options);
  if (wants("experts")) MeasureExperts(options);
  if (wants("attention")) MeasureAttention(options);
  return 0;
}

}  // namespace
}  // namespace wideload::bench

int main(int argc, char** argv) {
  try {
    return wideload::bench::Run(argc, argv);
  } catch (const wideload::Error& error) {
    fmt::print(stderr, "bench_kernels: {}\n", error.what());
    return wideload::ExitCode(error.kind());
  }
}
