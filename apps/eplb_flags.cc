// What several eplb commands say alike: nodes and groups, and where a placement file goes.
#include <algorithm>
#include <cstdio>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "eplb/policies/policy.h"
#include "eplb_commands.h"

namespace wideload::apps {

void CheckEpSize(int32_t ep_size) {
  if (ep_size > statistics::kMaxEplbRanks)
    Throw(ErrorKind::kInvalid, "ep_size is {}; placements are planned for at most {} ranks",
          ep_size, statistics::kMaxEplbRanks);
}

void CheckNumSlots(int32_t num_experts, int32_t num_slots, int32_t ep_size) {
  eplb::ValidateSizes(num_experts, num_slots, ep_size, "--num_slots");
  if (num_slots > statistics::kMaxEplbSlots)
    Throw(ErrorKind::kInvalid, "--num_slots is {}; a plan holds at most {} slots a layer",
          num_slots, statistics::kMaxEplbSlots);
  CheckEpSize(ep_size);
  if (num_slots > int64_t{num_experts} * ep_size)
    Throw(
        ErrorKind::kInvalid,
        "--num_slots is {}; at most {} are allowed: {} (experts) x {} (ep_size), with which every "
        "rank holds every expert",
        num_slots, int64_t{num_experts} * ep_size, num_experts, ep_size);
}

void AddNodeFlags(Command command, NodeFlags& flags) {
  command.Add("--nodes", flags.num_nodes, "nodes the ranks are spread over")
      .Positive()
      .ShowDefault();
  command.Add("--num-groups", flags.num_groups, "expert groups of the router")
      .Positive()
      .ShowDefault();
  command
      .Add("--cross-node-slots", flags.cross_node_slots,
           fmt::format("slots of a layer that repair and the policies {} may give to an expert of "
                       "another node (default: as many as nodes; repair: or as many as there are, "
                       "if more)",
                       fmt::join(eplb::PolicyNames(&eplb::Policy::bounds_cross_slots), ", ")))
      .NonNegative();
}

namespace {

void WarnOfGroups(const NodeFlags& flags, const std::vector<std::string>& policies) {
  for (const std::string& name : policies)
    if (eplb::FindPolicy(name).needs_groups_on_nodes && flags.num_nodes > 1 &&
        flags.num_groups % flags.num_nodes != 0)
      LogWarn(
          "--policy {} with --nodes {} --num_groups {}: plans as on one node, as its groups do not "
          "divide into the nodes; --num_groups must be a multiple of {}",
          name, flags.num_nodes, flags.num_groups, flags.num_nodes);
}

}  // namespace

void CheckNodeFlags(const NodeFlags& flags, std::string_view flag,
                    const std::vector<std::string>& policies) {
  bool looks_at_nodes = false;
  bool bounds_cross_slots = false;
  for (const std::string& name : policies) {
    looks_at_nodes |= eplb::FindPolicy(name).looks_at_nodes;
    bounds_cross_slots |= eplb::FindPolicy(name).bounds_cross_slots;
  }
  if (flags.cross_node_slots && (flags.num_nodes == 1 || !bounds_cross_slots))
    Throw(ErrorKind::kInvalid,
          "--cross_node_slots {} with --nodes {} and {} {}; allowed: several nodes and {}",
          *flags.cross_node_slots, flags.num_nodes, flag, fmt::join(policies, ","),
          fmt::join(eplb::PolicyNames(&eplb::Policy::bounds_cross_slots), ", "));
  WarnOfGroups(flags, policies);
  if (looks_at_nodes || (flags.num_nodes == 1 && flags.num_groups == 1)) return;
  Throw(ErrorKind::kInvalid,
        "--nodes {} --num_groups {}: {} {} does not look at nodes and groups; 1 is allowed, or a "
        "policy that does: {}",
        flags.num_nodes, flags.num_groups, flag, fmt::join(policies, ","),
        fmt::join(eplb::PolicyNames(&eplb::Policy::looks_at_nodes), ", "));
}

void AddPlacementOutput(Command command, PlacementOutput& output) {
  command.Add("--output-path", output.path, "EPLB YAML to write; - is stdout").Required();
  command.Add("--json", output.json, "one JSON document instead of the table");
}

std::vector<FileUse> FilesOf(const StatisticsFlags& flags) {
  return {Reads("--expert_statistic_path", flags.path),
          Reads("--eplb_config", flags.eplb_config.value_or(""))};
}

std::vector<FileUse> FilesOf(const LoadFlags& flags) {
  std::vector<FileUse> files = FilesOf(flags.statistics);
  files.push_back(Reads("--loads", flags.loads));
  files.push_back(Reads("--routing", flags.routing));
  return files;
}

void CheckPlacementOutput(const PlacementOutput& output, std::vector<FileUse> inputs) {
  if (output.json && output.path == "-")
    Throw(ErrorKind::kInvalid, "--json and --output_path -: only one can have standard output");
  inputs.push_back(Writes("--output_path", output.path));
  CheckFiles(inputs);
  CheckWritable(output.path);
}

void PrintPlacementReport(const PlacementOutput& output, const std::string& text) {
  if (output.path == "-")
    std::fputs(text.c_str(), stderr);
  else
    WriteFileWhole("-", text);
}

}  // namespace wideload::apps
