// The end of a process with its parent, also while native code computes or waits, when JavaScript sees no timer.
#include <chrono>
#include <thread>
#include <unistd.h>

extern "C" {

// Ends this process so many seconds after its parent has ended, if it is still there by then.
void mlxlm_end_with_parent(int seconds) {
  auto parent = getppid();
  std::thread([parent, seconds] {
    while (getppid() == parent) {
      std::this_thread::sleep_for(std::chrono::milliseconds(500));
    }
    std::this_thread::sleep_for(std::chrono::seconds(seconds));
    _exit(1);
  }).detach();
}

} // extern "C"
