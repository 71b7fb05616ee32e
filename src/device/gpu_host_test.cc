// Machines as folders: what is found on them, what is wanted, what is to be done.
#include "device/gpu_host.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>

namespace wideload::device {
namespace {

using Level = GpuFinding::Level;
using ::testing::HasSubstr;

struct GpuHostTest : testing::Test {
  void SetUp() override {
    root = testing::TempDir() + "gpu_host_" +
           testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(root);
    std::filesystem::create_directories(root);
  }
  void TearDown() override { std::filesystem::remove_all(root); }

  void Write(const std::string& path, const std::string& content = "") const {
    std::filesystem::create_directories(std::filesystem::path(root + path).parent_path());
    std::ofstream(root + path) << content;
  }
  void Remove(const std::string& path) const { std::filesystem::remove(root + path); }

  // A machine whose GPUs work.
  void WriteMachine(const std::string& model, const std::string& driver = "580.65.06") const {
    Write("/proc/driver/nvidia/version",
          "NVRM version: NVIDIA UNIX x86_64 Kernel Module  " + driver +
              "  Sun Jul 27 07:09:23 UTC 2025\nGCC version:  gcc version 12.3.0\n");
    Write("/proc/driver/nvidia/params", "CreateImexChannel0: 0\nCoherentGPUMemoryMode: \"\"\n");
    for (const char* gpu : {"0000:17:00.0", "0000:9d:00.0"})
      Write(std::string("/proc/driver/nvidia/gpus/") + gpu + "/information",
            "Model: \t\t " + model + "\nIRQ:   \t\t 48\n");
    for (const char* file : {"nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"})
      Write(std::string("/dev/") + file);
    Write("/dev/gdrdrv");
  }

  std::map<std::string, GpuFinding> Look() const {
    const GpuHost host{.root = root,
                       .variable =
                           [this](const char* name) {
                             const auto it = variables.find(name);
                             return it == variables.end() ? "" : it->second;
                           },
                       .load_library = [this](const char*) { return why_not_loaded; },
                       .why_no_device = why_no_device};
    std::map<std::string, GpuFinding> findings;
    for (const GpuFinding& finding : LookForGpus(host)) {
      EXPECT_FALSE(finding.found.empty() || finding.wanted.empty()) << finding.name;
      EXPECT_EQ(finding.found.find('\n'), std::string::npos) << finding.name;
      findings[finding.name] = finding;
    }
    return findings;
  }

  std::string root;
  std::map<std::string, std::string> variables;
  std::string why_not_loaded, why_no_device;
};

TEST_F(GpuHostTest, AMachineWithoutGpusHasOneNote) {
  why_no_device = "this program was built without CUDA";
  const auto findings = Look();
  ASSERT_EQ(findings.size(), 1U);
  EXPECT_EQ(findings.at("GPUs").level, Level::kNote);
  EXPECT_EQ(findings.at("GPUs").found, "none");
  EXPECT_EQ(findings.at("GPUs").run, "");
}

TEST_F(GpuHostTest, AGpuWithoutADriverIsAProblem) {
  Write("/sys/bus/pci/devices/0000:17:00.0/vendor", "0x10de\n");
  Write("/sys/bus/pci/devices/0000:17:00.0/class", "0x030200\n");
  Write("/sys/bus/pci/devices/0000:18:00.0/vendor", "0x10de\n");
  Write("/sys/bus/pci/devices/0000:18:00.0/class", "0x068000\n");  // a switch
  Write("/sys/bus/pci/devices/0000:19:00.0/vendor", "0x1002\n");
  Write("/sys/bus/pci/devices/0000:19:00.0/class", "0x030000\n");
  const auto findings = Look();
  ASSERT_EQ(findings.size(), 1U);
  EXPECT_EQ(findings.at("GPUs").level, Level::kProblem);
  EXPECT_THAT(findings.at("GPUs").found, HasSubstr("1 on the PCI bus"));
  EXPECT_THAT(findings.at("GPUs").run, HasSubstr("install the driver"));
}

TEST_F(GpuHostTest, AMachineWithAllOfItIsOk) {
  WriteMachine("NVIDIA H100 80GB HBM3");
  const auto findings = Look();
  EXPECT_EQ(findings.size(), 5U);
  for (const auto& [name, finding] : findings) {
    EXPECT_EQ(finding.level, Level::kOk) << name << ": " << finding.found;
    EXPECT_EQ(finding.run, "") << name;
  }
  EXPECT_EQ(findings.at("GPUs").found, "2 x NVIDIA H100 80GB HBM3");
  EXPECT_EQ(findings.at("GPU driver").found, "NVIDIA 580.65.06, libcuda.so.1");
}

TEST_F(GpuHostTest, DeviceFilesThatAContainerWasNotGivenAreNamed) {
  WriteMachine("NVIDIA H100 80GB HBM3");
  for (const char* file : {"/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia-uvm"}) Remove(file);
  const GpuFinding gpus = Look().at("GPUs");
  EXPECT_EQ(gpus.level, Level::kProblem);
  EXPECT_THAT(gpus.found, HasSubstr("missing: /dev/nvidia0, /dev/nvidia-uvm"));
  EXPECT_THAT(gpus.run, HasSubstr("--gpus all"));
}

TEST_F(GpuHostTest, AProgramThatFindsNoneSaysWhy) {
  WriteMachine("NVIDIA H100 80GB HBM3");
  why_no_device = "this program was built without CUDA";
  const GpuFinding gpus = Look().at("GPUs");
  EXPECT_EQ(gpus.level, Level::kNote);
  EXPECT_THAT(gpus.found, HasSubstr(why_no_device));
  EXPECT_THAT(gpus.run, HasSubstr("--preset cuda"));
}

TEST_F(GpuHostTest, AnOldDriverOrOneWithoutItsLibraryIsAProblem) {
  WriteMachine("NVIDIA A100", "535.183.01");
  GpuFinding driver = Look().at("GPU driver");
  EXPECT_EQ(driver.level, Level::kProblem);
  EXPECT_THAT(driver.found, HasSubstr("535.183.01"));
  EXPECT_THAT(driver.run, HasSubstr("580 or newer"));
  WriteMachine("NVIDIA A100");
  why_not_loaded = "libcuda.so.1: cannot open shared object file";
  driver = Look().at("GPU driver");
  EXPECT_EQ(driver.level, Level::kProblem);
  EXPECT_THAT(driver.found, HasSubstr(why_not_loaded));
  EXPECT_THAT(driver.run, HasSubstr("NVIDIA_DRIVER_CAPABILITIES"));
}

TEST_F(GpuHostTest, ChannelsBetweenHostsAreWantedInRacksOnly) {
  WriteMachine("NVIDIA GB200");
  const GpuFinding missing = Look().at("multi-node NVLink");
  EXPECT_EQ(missing.level, Level::kNote);
  EXPECT_THAT(missing.run, HasSubstr("/dev/nvidia-caps-imex-channels"));
  Write("/dev/nvidia-caps-imex-channels/channel0");
  const GpuFinding found = Look().at("multi-node NVLink");
  EXPECT_EQ(found.level, Level::kOk);
  EXPECT_THAT(found.found, HasSubstr("1 channels"));
}

TEST_F(GpuHostTest, GdrCopyIsWantedWhereMemoryOfGpusIsNoNumaNode) {
  const auto gdrcopy = [&](const char* model, const char* mode) {
    WriteMachine(model);
    Remove("/dev/gdrdrv");
    Write("/proc/driver/nvidia/params", fmt::format("CoherentGPUMemoryMode: \"{}\"\n", mode));
    return Look();
  };
  EXPECT_EQ(gdrcopy("NVIDIA GB200", "numa").at("GDRCopy").level, Level::kOk);
  EXPECT_THAT(gdrcopy("NVIDIA GB200", "numa").at("CDMM").found, HasSubstr("off"));
  EXPECT_EQ(gdrcopy("NVIDIA GB200", "driver").at("GDRCopy").level, Level::kNote);
  EXPECT_THAT(gdrcopy("NVIDIA GB200", "driver").at("GDRCopy").run, HasSubstr("/dev/gdrdrv"));
  EXPECT_THAT(gdrcopy("NVIDIA GB200", "driver").at("CDMM").found, HasSubstr("on"));
  EXPECT_EQ(gdrcopy("NVIDIA GB200", "").at("CDMM").level, Level::kNote);
  EXPECT_THAT(gdrcopy("NVIDIA GB200", "").at("CDMM").run, HasSubstr("NVreg_CoherentGPUMemoryMode"));
  EXPECT_EQ(gdrcopy("NVIDIA H100", "").at("CDMM").level, Level::kOk);
  EXPECT_EQ(gdrcopy("NVIDIA H100", "").at("GDRCopy").level, Level::kNote);
}

TEST_F(GpuHostTest, AContainerOfEnrootWantsItsVariable) {
  WriteMachine("NVIDIA H100 80GB HBM3");
  EXPECT_FALSE(Look().contains("enroot"));
  Write("/.enroot.lock");
  EXPECT_EQ(Look().at("enroot").level, Level::kNote);
  EXPECT_THAT(Look().at("enroot").run, HasSubstr("ENROOT_ALLOW_DEV=yes"));
  variables["ENROOT_ALLOW_DEV"] = "yes";
  EXPECT_EQ(Look().at("enroot").level, Level::kOk);
  EXPECT_THAT(Look().at("enroot").found, HasSubstr("yes"));
}

TEST_F(GpuHostTest, OfThisMachineAtLeastSomethingIsSaid) {
  EXPECT_FALSE(LookForGpus(ThisGpuHost()).empty());
}

}  // namespace
}  // namespace wideload::device
