// Accelerators, without a type of their vendor: memory, streams of work, events. The CUDA runtime
// is behind it where the build has it; tests run kernels on a processor in its place (emulated/).
// Every error of the device throws Error(kRunFailed) that names the call and the device; after one,
// all later calls of the process may fail. A Device may be used by any thread, a Stream and an
// Event by one at a time; but any number of streams may be told to wait for an event at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace wideload {
class MemorySource;  // tensor/buffer.h
}  // namespace wideload

namespace wideload::device {

// What a device is.
struct Properties {
  std::string name;  // "NVIDIA H100 80GB HBM3"
  int major = 0;     // compute capability
  int minor = 0;
  int num_multiprocessors = 0;
  int64_t memory_bytes = 0;
  int64_t shared_bytes_per_block = 0;  // with the opt-in of a kernel
};

class Device;

// Room for values that the host writes and work of a device reads (Stream::Stage).
template <class T>
struct Staged {
  std::span<T> host;
  const T* device = nullptr;
};

// Memory of a device, or memory of the host that copies of the device reach without a detour and
// its kernels reach, too, if slowly. Zero-filled, 256-byte aligned. Move-only; freed when
// destroyed, which waits for the device.
class Memory {
 public:
  Memory() = default;
  // What the device has handed out.
  Memory(Device& device, std::byte* data, int64_t num_bytes, bool is_host)
      : device_(&device), data_(data), num_bytes_(num_bytes), is_host_(is_host) {}
  ~Memory();
  // Leaves the memory to the caller, who gives it back by making a Memory of it.
  std::byte* Release() { return std::exchange(data_, nullptr); }
  Memory(Memory&& other) noexcept;
  Memory& operator=(Memory&& other) noexcept;

  std::byte* data() const { return data_; }
  int64_t num_bytes() const { return num_bytes_; }
  std::span<std::byte> bytes() const { return {data_, static_cast<size_t>(num_bytes_)}; }

 private:
  Device* device_ = nullptr;
  std::byte* data_ = nullptr;
  int64_t num_bytes_ = 0;
  bool is_host_ = false;
};

// A point in the work of a stream.
class Event {
 public:
  virtual ~Event() = default;
  // Whether the work before the last Record has ended; yes when nothing was recorded.
  virtual bool IsReached() = 0;
};

// Work of a device that is done in the order of its calls, which return before it is. Memory that a
// call names stays as it is until the work has been done.
class Stream {
 public:
  // Of work on this device.
  explicit Stream(Device& device) : device_(device) {}
  virtual ~Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Between the host and the device, or within it.
  virtual void Copy(void* to, const void* from, int64_t num_bytes) = 0;
  // All bytes `value`.
  virtual void Fill(void* to, uint8_t value, int64_t num_bytes) = 0;
  // The event is reached when what came before has been done.
  virtual void Record(Event& event) = 0;
  // What comes after waits for the last Record of the event before this call, on any stream.
  virtual void WaitFor(const Event& event) = 0;
  // Waits for all of it. What Upload has given becomes invalid.
  void Synchronize();

  // A copy of `values` in memory of the device, for the work until Synchronize; `values` may change
  // at once.
  template <class T>
  const T* Upload(std::span<const T> values) {
    return reinterpret_cast<const T*>(
        UploadBytes(std::as_bytes(values).data(), static_cast<int64_t>(values.size_bytes())));
  }

  // Memory of the device that the work of one op passes on within it: valid until the next call.
  // Memory that is too small is replaced, which waits for the device.
  std::byte* Scratch(int64_t num_bytes);
  // Room for `count` values that the host writes and then sends; valid until Synchronize.
  template <class T>
  Staged<T> Stage(int64_t count) {
    const Staged<std::byte> bytes = StageBytes(count * static_cast<int64_t>(sizeof(T)));
    return {{reinterpret_cast<T*>(bytes.host.data()), static_cast<size_t>(count)},
            reinterpret_cast<const T*>(bytes.device)};
  }
  // Copies what has been written there to the device. Once for each room.
  template <class T>
  void Send(const Staged<T>& staged) {
    if (staged.host.empty()) return;
    Copy(static_cast<void*>(const_cast<T*>(staged.device)),
         static_cast<const void*>(staged.host.data()),
         static_cast<int64_t>(staged.host.size_bytes()));
  }

  // Waits after every kernel, so that the host can read what it has written: for tests.
  void set_blocking(bool is_blocking) { is_blocking_ = is_blocking; }
  // Called by Launch after each kernel.
  void AfterLaunch() {
    if (is_blocking_) Synchronize();
  }
  Device& device() const { return device_; }
  // The vendor's handle, for the calling thread to put work on next.
  virtual void* native() const = 0;

 private:
  // Waits for all of it.
  virtual void Wait() = 0;
  const std::byte* UploadBytes(const std::byte* values, int64_t num_bytes);
  Staged<std::byte> StageBytes(int64_t num_bytes);

  struct Block {  // the same offsets in both
    Memory host;
    Memory device;
  };
  Device& device_;
  bool is_blocking_ = false;
  std::vector<Block> uploads_;
  int64_t num_uploaded_ = 0;  // bytes of the last block
  Memory scratch_;
};

// One accelerator.
class Device {
 public:
  Device();
  virtual ~Device();
  // Known without asking the device.
  virtual const Properties& properties() const = 0;
  // Memory that nobody uses.
  virtual int64_t FreeBytes() = 0;
  // Errors: kResource when the memory is not to be had.
  virtual Memory Allocate(int64_t num_bytes) = 0;
  // Memory of the host that the device reaches. Errors: as Allocate.
  virtual Memory AllocateHost(int64_t num_bytes) = 0;
  // `is_urgent`: its work goes before that of other streams.
  virtual std::unique_ptr<Stream> MakeStream(bool is_urgent = false) = 0;
  // Of any stream of this device.
  virtual std::unique_ptr<Event> MakeEvent() = 0;

  // Allocate and AllocateHost for buffers.
  MemorySource& memory();
  // Likewise.
  MemorySource& host_memory();

 private:
  friend class Memory;
  class Source;
  std::unique_ptr<Source> memory_;
  std::unique_ptr<Source> host_memory_;
  virtual void Free(std::byte* data, bool is_host) noexcept = 0;
};

// How many GPUs this program can find here. Returns 0 with the reason, in one line: "this program
// was built without CUDA", or "no CUDA device: " and the runtime's text.
int NumDevices(std::string& why_none);
// GPUs by their numbers, from 0, in this order; what one of them does reaches the memory of all.
// Errors: kUnsupported, in one line, when there is none or not this one, its compute capability is
// below 8.0, or it cannot reach the memory of another one.
std::vector<std::unique_ptr<Device>> OpenDevices(std::span<const int> indices);

}  // namespace wideload::device
