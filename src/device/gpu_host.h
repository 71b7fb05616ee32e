// What a machine, or a container on it, has for NVIDIA GPUs, and what a run on them wants: from
// files and variables alone, so that it can be said where CUDA cannot. Thread-safe.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace wideload::device {

// One thing looked at.
struct GpuFinding {
  // note: a run works, and works better otherwise. problem: runs on GPUs do not work.
  enum class Level { kOk, kNote, kProblem };
  std::string name;
  Level level = Level::kOk;
  std::string found;
  std::string wanted;
  std::string run = {};  // what to do; empty when nothing is
};

// Where it is looked.
struct GpuHost {
  std::string root;  // before /proc, /dev, /sys; empty: the machine's
  std::function<std::string(const char*)> variable;  // of the environment; "" when it is not set
  std::function<std::string(const char*)> load_library;  // "" or why the library cannot be loaded
  std::string why_no_device;  // of this program (NumDevices); empty when it finds GPUs
};

// GPUs and their device files, driver, and what ranks on several hosts and host threads that write
// memory of GPUs need. A machine without GPUs has a single note. Source: prerequisites of
// TensorRT-LLM's wide expert parallelism.
std::vector<GpuFinding> LookForGpus(const GpuHost& host);
// Of this machine and process.
GpuHost ThisGpuHost();

}  // namespace wideload::device
