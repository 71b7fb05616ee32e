#include "device/emulated/emulated_device.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <iterator>
#include <map>
#include <mutex>
#include <utility>

#include "base/error.h"
#include "device/emulated/fibers.h"
#include "device/kernel.h"

namespace wideload::device {
namespace {

constexpr int64_t kPage = 4096;
constexpr int64_t kAlignment = 256;

int64_t RoundUpTo(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// The memory of the device: pieces that end at a page nobody may touch, and that can be touched
// only while work is done.
class Pages {
 public:
  explicit Pages(int64_t num_bytes) : num_bytes_(num_bytes) {
    void* const mapping = ::mmap(nullptr, static_cast<size_t>(2 * num_bytes), PROT_NONE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED)
      Throw(ErrorKind::kResource, "cannot reserve {} bytes of addresses", 2 * num_bytes);
    begin_ = static_cast<std::byte*>(mapping);
    free_[0] = 2 * num_bytes;
  }
  ~Pages() { ::munmap(begin_, static_cast<size_t>(2 * num_bytes_)); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  std::byte* Take(int64_t num_bytes) {
    const int64_t data_bytes = RoundUpTo(std::max<int64_t>(num_bytes, 1), kAlignment);
    const int64_t page_bytes = RoundUpTo(data_bytes, kPage);
    for (auto it = free_.begin(); it != free_.end(); ++it) {
      const auto [offset, size] = *it;
      if (size < page_bytes + kPage || used_ + page_bytes > num_bytes_) continue;
      free_.erase(it);
      if (size > page_bytes + kPage) free_[offset + page_bytes + kPage] = size - page_bytes - kPage;
      pieces_[offset] = page_bytes;
      used_ += page_bytes;
      if (is_open_) Protect(offset, page_bytes, PROT_READ | PROT_WRITE);
      return begin_ + offset + page_bytes - data_bytes;
    }
    Throw(ErrorKind::kResource, "the device has {} bytes, {} of them in use; {} more are wanted",
          num_bytes_, used_, num_bytes);
  }

  int64_t free_bytes() const { return num_bytes_ - used_; }
  void GiveBack(const std::byte* data) {
    const auto it = --pieces_.upper_bound(data - begin_);
    const auto [offset, page_bytes] = *it;
    Protect(offset, page_bytes, PROT_NONE);
    ::madvise(begin_ + offset, static_cast<size_t>(page_bytes), MADV_DONTNEED);
    used_ -= page_bytes;
    AddFree(offset, page_bytes + kPage);
    pieces_.erase(it);
  }

  void Open(bool is_open) {
    is_open_ = is_open;
    for (const auto& [offset, page_bytes] : pieces_)
      Protect(offset, page_bytes, is_open ? PROT_READ | PROT_WRITE : PROT_NONE);
  }

 private:
  // With the free neighbours as one.
  void AddFree(int64_t offset, int64_t num_bytes) {
    auto after = free_.lower_bound(offset);
    if (after != free_.end() && after->first == offset + num_bytes) {
      num_bytes += after->second;
      after = free_.erase(after);
    }
    if (after != free_.begin()) {
      const auto before = std::prev(after);
      if (before->first + before->second == offset) {
        before->second += num_bytes;
        return;
      }
    }
    free_[offset] = num_bytes;
  }

  void Protect(int64_t offset, int64_t page_bytes, int protection) {
    WIDELOAD_CHECK(::mprotect(begin_ + offset, static_cast<size_t>(page_bytes), protection) == 0,
                   "mprotect of {} bytes", page_bytes);
  }

  int64_t num_bytes_;
  int64_t used_ = 0;
  bool is_open_ = false;
  std::byte* begin_ = nullptr;
  std::map<int64_t, int64_t> free_;    // offset to bytes
  std::map<int64_t, int64_t> pieces_;  // offset to bytes, the guard page left out
};

class EmulatedDevice;

// What a stream has to do; events refer to it even when the stream is gone.
struct Work {
  std::deque<std::function<void()>> queue;
  int64_t num_enqueued = 0;
  int64_t num_done = 0;
  bool is_running = false;
};

// What the devices of one machine share: one of them works at a time, whichever thread waits for
// it, and reaches the memory of all. Meanwhile other threads give the streams more to do.
class Machine {
 public:
  // Does the work of a stream up to a place.
  void Run(Work& work, int64_t until) {
    const std::lock_guard running(run_mutex_);
    if (work.num_done >= until) return;
    WIDELOAD_CHECK(!work.is_running, "work of a stream waits for itself");
    if (depth_++ == 0) Open(true);
    while (work.num_done < until) {
      const std::function<void()> next = TakeNext(work);
      work.is_running = true;
      next();
      work.is_running = false;
      ++work.num_done;
    }
    if (--depth_ == 0) Open(false);
  }
  // Does all the work of all streams.
  void RunAll() {
    std::vector<std::pair<std::shared_ptr<Work>, int64_t>> all;
    {
      const std::lock_guard lock(mutex_);
      for (const std::weak_ptr<Work>& weak : works_)
        if (std::shared_ptr<Work> work = weak.lock()) all.emplace_back(work, work->num_enqueued);
    }
    for (const auto& [work, until] : all) Run(*work, until);
  }
  // Puts something at the end of a stream's work.
  void Add(Work& work, std::function<void()> body) {
    const std::lock_guard lock(mutex_);
    work.queue.push_back(std::move(body));
    ++work.num_enqueued;
  }
  // A kernel, in the next order of threads.
  void AddKernel(Work& work, const Grid& grid, std::function<void()> body) {
    Add(work,
        [grid, seed = ++seed_, body = std::move(body)] { emulated::RunGrid(grid, seed, body); });
  }
  // Owned by the stream, and by what waits for it: work may wait for a stream that has gone.
  std::shared_ptr<Work> MakeWork() {
    const std::lock_guard lock(mutex_);
    std::erase_if(works_, [](const std::weak_ptr<Work>& work) { return work.expired(); });
    auto work = std::make_shared<Work>();
    works_.push_back(work);
    return work;
  }

  // Of all but what the work itself does.
  std::unique_lock<std::mutex> Lock() { return std::unique_lock(mutex_); }
  void AddPages(Pages& pages) { pages_.push_back(&pages); }
  void RemovePages(Pages& pages) { std::erase(pages_, &pages); }

 private:
  std::function<void()> TakeNext(Work& work) {
    const std::lock_guard lock(mutex_);
    std::function<void()> next = std::move(work.queue.front());
    work.queue.pop_front();
    return next;
  }
  void Open(bool is_open) {
    const std::lock_guard lock(mutex_);
    for (Pages* const pages : pages_) pages->Open(is_open);
  }

  std::recursive_mutex run_mutex_;  // held by who does work, taken before the other
  int depth_ = 0;
  std::mutex mutex_;
  std::atomic<uint32_t> seed_ = 0;
  std::vector<Pages*> pages_;
  std::vector<std::weak_ptr<Work>> works_;
};

class EmulatedDevice final : public Device {
 public:
  // The machine belongs to its devices.
  EmulatedDevice(std::shared_ptr<Machine> machine, int64_t memory_bytes)
      : machine_(std::move(machine)), pages_(memory_bytes) {
    const auto lock = machine_->Lock();
    machine_->AddPages(pages_);
    properties_ = {.name = "this processor in place of a GPU",
                   .major = 8,
                   .minor = 0,
                   .num_multiprocessors = 4,
                   .memory_bytes = memory_bytes,
                   .shared_bytes_per_block = 163 << 10};
  }
  ~EmulatedDevice() override {
    const auto lock = machine_->Lock();
    machine_->RemovePages(pages_);
  }
  const Properties& properties() const override { return properties_; }
  int64_t FreeBytes() override {
    const auto lock = machine_->Lock();
    return pages_.free_bytes();
  }
  Memory Allocate(int64_t num_bytes) override {
    const auto lock = machine_->Lock();
    return Memory(*this, pages_.Take(num_bytes), num_bytes, false);
  }
  Memory AllocateHost(int64_t num_bytes) override {
    const auto size = static_cast<size_t>(RoundUpTo(std::max<int64_t>(num_bytes, 1), kAlignment));
    auto* const data = static_cast<std::byte*>(std::aligned_alloc(kAlignment, size));
    if (data == nullptr) Throw(ErrorKind::kResource, "cannot allocate {} bytes", num_bytes);
    std::memset(data, 0, size);
    return Memory(*this, data, num_bytes, true);
  }
  std::unique_ptr<Stream> MakeStream(bool is_urgent) override;
  std::unique_ptr<Event> MakeEvent() override;

 private:
  void Free(std::byte* data, bool is_host) noexcept override {
    machine_->RunAll();
    if (is_host) return std::free(data);
    const auto lock = machine_->Lock();
    pages_.GiveBack(data);
  }

  Properties properties_;
  std::shared_ptr<Machine> machine_;
  Pages pages_;
};

class EmulatedEvent final : public Event {
 public:
  explicit EmulatedEvent(Machine& machine) : machine_(machine) {}
  bool IsReached() override {
    if (work != nullptr) machine_.Run(*work, until);
    return true;
  }
  std::shared_ptr<Work> work;  // owned with the stream that it was recorded on
  int64_t until = 0;

 private:
  Machine& machine_;
};

class EmulatedStream final : public Stream {
 public:
  EmulatedStream(EmulatedDevice& device, Machine& machine)
      : Stream(device), machine_(machine), work_(machine.MakeWork()) {}
  ~EmulatedStream() override { machine_.Run(*work_, work_->num_enqueued); }

  void Enqueue(std::function<void()> body) { machine_.Add(*work_, std::move(body)); }
  void EnqueueKernel(const Grid& grid, std::function<void()> body) {
    machine_.AddKernel(*work_, grid, std::move(body));
  }
  void Copy(void* to, const void* from, int64_t num_bytes) override {
    Enqueue([=] { std::memmove(to, from, static_cast<size_t>(num_bytes)); });
  }
  void Fill(void* to, uint8_t value, int64_t num_bytes) override {
    Enqueue([=] { std::memset(to, value, static_cast<size_t>(num_bytes)); });
  }
  void Record(Event& event) override {
    auto& recorded = static_cast<EmulatedEvent&>(event);
    recorded.work = work_;
    recorded.until = work_->num_enqueued;
  }
  void WaitFor(const Event& event) override {
    const auto& awaited = static_cast<const EmulatedEvent&>(event);
    if (awaited.work == nullptr) return;
    Enqueue([&machine = machine_, work = awaited.work, until = awaited.until] {
      machine.Run(*work, until);
    });
  }
  void* native() const override { return nullptr; }

 private:
  void Wait() override { machine_.Run(*work_, work_->num_enqueued); }

  Machine& machine_;
  std::shared_ptr<Work> work_;  // owned with the events recorded on this stream
};

std::unique_ptr<Stream> EmulatedDevice::MakeStream(bool) {
  return std::make_unique<EmulatedStream>(*this, *machine_);
}

std::unique_ptr<Event> EmulatedDevice::MakeEvent() {
  return std::make_unique<EmulatedEvent>(*machine_);
}

}  // namespace

namespace emulated {

void Enqueue(Stream& stream, const Grid& grid, int max_threads, std::function<void()> body) {
  constexpr int64_t kMaxBlocksY = 65535;
  WIDELOAD_CHECK(
      grid.blocks >= 1 && grid.blocks_y >= 1 && grid.blocks_y <= kMaxBlocksY &&
          grid.threads >= kWarp && grid.threads <= max_threads && grid.threads % kWarp == 0 &&
          grid.shared_bytes <= stream.device().properties().shared_bytes_per_block,
      "a grid of {} x {} blocks of {} threads (at most {}) with {} bytes of shared memory",
      grid.blocks, grid.blocks_y, grid.threads, max_threads, grid.shared_bytes);
  static_cast<EmulatedStream&>(stream).EnqueueKernel(grid, std::move(body));
}

}  // namespace emulated

std::unique_ptr<Device> MakeEmulatedDevice(int64_t memory_bytes) {
  return std::make_unique<EmulatedDevice>(std::make_shared<Machine>(), memory_bytes);
}

std::vector<std::unique_ptr<Device>> MakeEmulatedDevices(int count, int64_t memory_bytes) {
  const auto machine = std::make_shared<Machine>();
  std::vector<std::unique_ptr<Device>> devices;
  for (int i = 0; i < count; ++i)
    devices.push_back(std::make_unique<EmulatedDevice>(machine, memory_bytes));
  return devices;
}

}  // namespace wideload::device
