#include "device/gpu_host.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "base/error.h"
#include "device/device.h"

namespace wideload::device {
namespace {

using Level = GpuFinding::Level;

// CUDA 13 wants this driver.
constexpr int kDriverWanted = 580;

// Names in a folder, sorted; none when there is no such folder.
std::vector<std::string> NamesIn(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error))
    names.push_back(entry.path().filename());
  std::ranges::sort(names);
  return names;
}

// What follows the first `field` in a file, without blanks and quotes before and behind it; "" when
// the file or the field is not there.
std::string FieldOf(const std::string& path, std::string_view field) {
  constexpr std::string_view kAround = " \t\"";
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    const size_t at = line.find(field);
    if (at == std::string::npos) continue;
    std::string value = line.substr(at + field.size());
    value.erase(0, std::min(value.find_first_not_of(kAround), value.size()));
    value.erase(value.find_last_not_of(kAround) + 1);
    return value;
  }
  return {};
}

bool Exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

bool IsNumber(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

// Device files of GPUs, /dev/nvidia0 and so on.
int NumGpuFiles(const std::string& root) {
  int count = 0;
  for (const std::string& name : NamesIn(root + "/dev"))
    if (name.starts_with("nvidia") && IsNumber(std::string_view(name).substr(6))) ++count;
  return count;
}

// Of NVIDIA's, for displays or computing, on the PCI bus.
int NumPciGpus(const std::string& root) {
  int count = 0;
  const std::string devices = root + "/sys/bus/pci/devices";
  for (const std::string& name : NamesIn(devices)) {
    const std::string device = fmt::format("{}/{}", devices, name);
    if (FieldOf(device + "/vendor", "0x") == "10de" &&
        FieldOf(device + "/class", "0x").starts_with("03"))
      ++count;
  }
  return count;
}

// "2 x NVIDIA H100 80GB HBM3"
std::string ModelsText(const std::vector<std::string>& models) {
  std::string text;
  for (size_t i = 0; i < models.size();) {
    const auto count = static_cast<size_t>(std::ranges::count(models, models[i]));
    text += fmt::format("{}{} x {}", text.empty() ? "" : ", ", count, models[i]);
    i += count;
  }
  return text;
}

std::vector<std::string> Models(const std::string& root) {
  std::vector<std::string> models;
  const std::string gpus = root + "/proc/driver/nvidia/gpus";
  for (const std::string& name : NamesIn(gpus)) {
    const std::string model = FieldOf(fmt::format("{}/{}/information", gpus, name), "Model:");
    models.push_back(model.empty() ? "NVIDIA GPU" : model);
  }
  std::ranges::sort(models);
  return models;
}

bool IsEnroot(const GpuHost& host) {
  return Exists(host.root + "/.enroot.lock") || !host.variable("ENROOT_ROOTFS").empty() ||
         !host.variable("ENROOT_ALLOW_DEV").empty();
}

// The version in "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  ...".
std::string DriverVersion(const std::string& root) {
  const std::string line = FieldOf(root + "/proc/driver/nvidia/version", "NVRM version:");
  for (size_t begin = line.find_first_not_of(' '); begin < line.size();) {
    const size_t end = std::min(line.find(' ', begin), line.size());
    const std::string word = line.substr(begin, end - begin);
    const size_t dot = word.find('.');
    if (dot != std::string::npos && IsNumber(word.substr(0, dot))) return word;
    begin = std::min(line.find_first_not_of(' ', end), line.size());
  }
  return line.empty() ? "" : "unknown";
}

GpuFinding Devices(const GpuHost& host, const std::vector<std::string>& models) {
  std::string missing;
  const int num_files = NumGpuFiles(host.root);
  const auto add = [&](const std::string& what) {
    missing += (missing.empty() ? "" : ", ") + what;
  };
  if (num_files == 0) add("/dev/nvidia0");
  for (const char* file : {"/dev/nvidiactl", "/dev/nvidia-uvm"})
    if (!Exists(host.root + file)) add(file);
  GpuFinding finding{
      .name = "GPUs",
      .found = models.empty() ? fmt::format("{} device files", num_files) : ModelsText(models),
      .wanted = "their device files, and a program built with CUDA that finds them"};
  if (!missing.empty()) {
    finding.level = Level::kProblem;
    finding.found += "; missing: " + missing;
    finding.run =
        "as root: nvidia-modprobe -u -c 0; for a container: docker run --gpus all, or enroot with "
        "NVIDIA_VISIBLE_DEVICES=all";
  } else if (!host.why_no_device.empty()) {
    finding.level = Level::kNote;
    finding.found += "; " + host.why_no_device;
    finding.run = "build with cmake --preset cuda; nvidia-smi shows whether the driver works";
  }
  return finding;
}

GpuFinding Driver(const GpuHost& host, const std::string& version) {
  const std::string why_not = host.load_library("libcuda.so.1");
  GpuFinding finding{
      .name = "GPU driver",
      .found = version.empty() ? "no /proc/driver/nvidia/version" : "NVIDIA " + version,
      .wanted = fmt::format("{} or newer, and its libcuda.so.1", kDriverWanted)};
  finding.found += why_not.empty() ? ", libcuda.so.1" : "; " + why_not;
  if (version.empty()) {
    finding.run = "install the driver (Debian: nvidia-driver), then modprobe nvidia";
  } else if (!why_not.empty()) {
    finding.run =
        "install the driver's libraries (Debian: libcuda1); for a container: "
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility";
  } else if (IsNumber(version.substr(0, version.find('.'))) &&
             std::atoi(version.c_str()) < kDriverWanted) {
    finding.run = fmt::format("install driver {} or newer", kDriverWanted);
  }
  finding.level = finding.run.empty() ? Level::kOk : Level::kProblem;
  return finding;
}

// Memory of GPUs that processes on several hosts share by NVLink.
GpuFinding ImexChannels(const GpuHost& host, bool is_rack) {
  const std::string folder = "/dev/nvidia-caps-imex-channels";
  const auto num_channels = NamesIn(host.root + folder).size();
  const bool is_missing = num_channels == 0;
  return {.name = "multi-node NVLink",
          .level = is_missing && is_rack ? Level::kNote : Level::kOk,
          .found = is_missing ? fmt::format("no channel in {}", folder)
                              : fmt::format("{} channels in {}", num_channels, folder),
          .wanted = "a channel, for ranks on several hosts of a GB200 or GB300 NVL72 rack",
          .run = is_missing && is_rack
                     ? fmt::format("start nvidia-imex and make a channel (module option "
                                   "NVreg_CreateImexChannel0=1); for a container: --device {}",
                                   folder)
                     : ""};
}

// Whether GPUs that are coherent with the processor (Grace) have their memory as NUMA nodes of the
// system, or to themselves. Of other GPUs it always is their own.
struct MemoryMode {
  bool is_known = false;
  bool is_own = true;
  std::string text;
};

MemoryMode ReadMemoryMode(const GpuHost& host, bool is_coherent) {
  const std::string mode =
      FieldOf(host.root + "/proc/driver/nvidia/params", "CoherentGPUMemoryMode:");
  if (!is_coherent)
    return {.is_known = true, .is_own = true, .text = "not coherent with the processor"};
  if (mode == "driver") return {true, true, "on (CoherentGPUMemoryMode driver)"};
  if (mode == "numa") return {true, false, "off (CoherentGPUMemoryMode numa)"};
  return {false, true, "CoherentGPUMemoryMode is not set: what the driver's version has"};
}

GpuFinding Cdmm(const MemoryMode& mode) {
  return {.name = "CDMM",
          .level = mode.is_known ? Level::kOk : Level::kNote,
          .found = mode.text,
          .wanted =
              "known: with it memory of GPUs is no NUMA node, and nothing else comes to lie "
              "in it",
          .run = mode.is_known ? ""
                               : "choose: options nvidia NVreg_CoherentGPUMemoryMode=driver (or "
                                 "numa) in /etc/modprobe.d; with numa bind to the processors' "
                                 "nodes (numactl -m 0,1)"};
}

GpuFinding GdrCopy(const GpuHost& host, const MemoryMode& mode) {
  const bool is_there = Exists(host.root + "/dev/gdrdrv");
  const bool is_wanted = mode.is_own && !is_there;
  return {.name = "GDRCopy",
          .level = is_wanted ? Level::kNote : Level::kOk,
          .found = is_there ? "/dev/gdrdrv" : "no /dev/gdrdrv",
          .wanted =
              "where host threads write memory of GPUs that is no NUMA node, as "
              "TensorRT-LLM's online balancing does; wideload needs none",
          .run = is_wanted ? "install GDRCopy and modprobe gdrdrv; for a container: "
                             "--device=/dev/gdrdrv, or enroot with "
                             "--container-mounts=/dev/gdrdrv:/dev/gdrdrv"
                           : ""};
}

GpuFinding Enroot(const GpuHost& host) {
  const std::string value = host.variable("ENROOT_ALLOW_DEV");
  return {
      .name = "enroot",
      .level = value.empty() ? Level::kNote : Level::kOk,
      .found = value.empty() ? "a container of enroot, ENROOT_ALLOW_DEV is not set"
                             : "ENROOT_ALLOW_DEV is " + value,
      .wanted = "set, so that device files that are mounted into the container can be used",
      .run = value.empty() ? "export ENROOT_ALLOW_DEV=yes before the container is started" : ""};
}

}  // namespace

std::vector<GpuFinding> LookForGpus(const GpuHost& host) {
  const std::vector<std::string> models = Models(host.root);
  const std::string version = DriverVersion(host.root);
  const int num_pci = NumPciGpus(host.root);
  if (models.empty() && version.empty() && NumGpuFiles(host.root) == 0) {
    if (num_pci == 0)
      return {{.name = "GPUs",
               .level = Level::kNote,
               .found = "none",
               .wanted = "NVIDIA's, compute capability 8.0 or higher, for --device cuda"}};
    return {{.name = "GPUs",
             .level = Level::kProblem,
             .found = fmt::format("{} on the PCI bus, no driver", num_pci),
             .wanted = fmt::format("NVIDIA's driver, {} or newer", kDriverWanted),
             .run = "install the driver (Debian: nvidia-driver), then modprobe nvidia"}};
  }
  const auto is_of = [&](std::string_view kind) {
    return std::ranges::any_of(
        models, [&](const std::string& model) { return model.find(kind) != std::string::npos; });
  };
  const bool is_rack = is_of("GB200") || is_of("GB300");
  const MemoryMode mode = ReadMemoryMode(host, is_rack || is_of("GH200"));
  std::vector<GpuFinding> findings = {Devices(host, models), Driver(host, version),
                                      ImexChannels(host, is_rack), Cdmm(mode), GdrCopy(host, mode)};
  if (IsEnroot(host)) findings.push_back(Enroot(host));
  return findings;
}

GpuHost ThisGpuHost() {
  GpuHost host{.root = "",
               .variable =
                   [](const char* name) {
                     const char* const value = std::getenv(name);
                     return std::string(value == nullptr ? "" : value);
                   },
               .load_library = [](const char* name) -> std::string {
                 void* const library = ::dlopen(name, RTLD_LAZY | RTLD_LOCAL);
                 if (library == nullptr) return ::dlerror();
                 ::dlclose(library);
                 return "";
               },
               .why_no_device = ""};
  NumDevices(host.why_no_device);
  return host;
}

}  // namespace wideload::device
