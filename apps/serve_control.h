// What the people who run a server can ask of it while it serves: the routes of --control-port.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "serve/control.h"
#include "session.h"

namespace wideload::apps {

class ServeControl {
 public:
  // Recordings are written into folders of `record_path`; empty: they cannot be. `session` must
  // outlive it.
  ServeControl(Session& session, std::string record_path)
      : session_(session), record_path_(std::move(record_path)) {}
  ServeControl(const ServeControl&) = delete;
  ServeControl& operator=(const ServeControl&) = delete;

  // They must not be used once this has ended.
  std::vector<serve::ControlRoute> Routes();
  // Any thread.
  bool is_drain_asked() const { return is_drain_asked_; }
  // Takes the recorder from the engine. Call before the engine ends, unless it has failed.
  void End(runtime::Engine& engine);

 private:
  // Each of a route.
  std::string StartRecording(runtime::Engine& engine);
  std::string StopRecording(runtime::Engine& engine);
  std::string Dump();
  static std::string Rebalance(runtime::Engine& engine);
  std::string Drain();

  Session& session_;
  std::string record_path_;
  std::unique_ptr<statistics::Recorder> recorder_;  // null: nothing has been recorded
  bool is_recording_ = false;
  std::atomic<bool> is_drain_asked_{false};
};

}  // namespace wideload::apps
