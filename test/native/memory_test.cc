// memory_test.cc: how much memory is free and how many CPUs may be used, read from folders that
// look like /proc and the cgroup file systems of machines and containers of every kind.
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <string>

#include "harness.h"
#include "platform/linux_cgroups.h"
#include "platform/linux_memory.h"
#include "platform/memory_info.h"

namespace polylm::test {
namespace {

constexpr int64_t kMb = int64_t{1} << 20;
std::string mb(int64_t count) { return std::to_string(count * kMb); }

// A folder that stands for "/". The machine has 16,000 MB, of which 12,000 are available.
class Machine {
 public:
  Machine() {
    static int made = 0;
    root_ = std::filesystem::temp_directory_path() /
            ("polylm-memory-" + std::to_string(reinterpret_cast<uintptr_t>(this)) + "-" +
             std::to_string(made++));
    write("/proc/meminfo", "MemTotal:       16384000 kB\nMemFree:         1024000 kB\n"
                           "MemAvailable:   12288000 kB\nBuffers:          102400 kB\n");
  }
  ~Machine() {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  void write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_.string() + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  // A version 2 group: sizes in MB; limit 0: "max".
  void v2(const std::string& group, int64_t limit, int64_t used, int64_t cache, int64_t high = 0) {
    write(group + "/memory.max", limit == 0 ? "max\n" : mb(limit) + "\n");
    write(group + "/memory.high", high == 0 ? "max\n" : mb(high) + "\n");
    write(group + "/memory.current", mb(used) + "\n");
    write(group + "/memory.stat", "anon " + mb(used - cache) + "\nfile " + mb(cache) +
                                      "\ninactive_file " + mb(cache * 3 / 4) +
                                      "\nactive_file " + mb(cache / 4) + "\n");
  }
  void v1(const std::string& group, int64_t limit, int64_t used, int64_t cache,
          const std::string& more = "") {
    write(group + "/memory.limit_in_bytes",
          (limit == 0 ? std::string("9223372036854771712") : mb(limit)) + "\n");
    write(group + "/memory.usage_in_bytes", mb(used) + "\n");
    write(group + "/memory.stat", "cache 0\ninactive_file 0\nactive_file 0\n" + more +
                                      "total_inactive_file " + mb(cache) +
                                      "\ntotal_active_file 0\n");
  }

  void expect(int64_t total, int64_t free) const {
    MemoryInfo info = machine_memory(root_.string());
    apply_cgroups(root_.string(), &info);
    apply_process_limits(root_.string(), &info);
    EXPECT_EQ(info.total_bytes / kMb, total);
    EXPECT_EQ(info.free_bytes / kMb, free);
  }
  double cpus() const { return cgroup_cpus(root_.string()); }

 private:
  std::filesystem::path root_;
};

constexpr const char* kV2Mount =
    "36 25 0:31 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

TEST(memory_of_a_machine_without_groups) {
  Machine machine;
  machine.expect(16000, 12000);
  machine.write("/proc/meminfo", "MemTotal: 16384000 kB\nMemFree: 1024000 kB\n"
                                 "Active(file): 2048000 kB\nInactive(file): 1024000 kB\n"
                                 "SReclaimable: 1024000 kB\n");  // a kernel before 3.14
  machine.expect(16000, 5000);
  MemoryInfo info = machine_memory("/nowhere");
  apply_cgroups("/nowhere", &info);
  EXPECT_EQ(info.total_bytes, int64_t{0});
}

// The file of a model that was just read lies in the page cache and counts as used by its group.
TEST(memory_page_cache_of_a_group_is_free_v2) {
  Machine machine;
  machine.write("/proc/self/mountinfo", kV2Mount);
  machine.write("/proc/self/cgroup", "0::/\n");  // in a namespace of its own
  machine.v2("/sys/fs/cgroup", 1000, 990, 800);
  machine.expect(1000, 810);
  machine.v2("/sys/fs/cgroup", 1000, 990, 0);
  machine.expect(1000, 10);
  machine.v2("/sys/fs/cgroup", 1000, 1040, 0);  // over its limit for a moment
  machine.expect(1000, 0);
  machine.v2("/sys/fs/cgroup", 0, 990, 0);
  machine.expect(16000, 12000);
  machine.v2("/sys/fs/cgroup", 2000, 300, 0, 1000);  // memory.high holds before memory.max
  machine.expect(1000, 700);
}

TEST(memory_page_cache_of_a_group_is_free_v1) {
  Machine machine;
  machine.write("/proc/self/mountinfo",
                "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
  machine.write("/proc/self/cgroup", "5:devices:/\n4:memory:/app/one\n0::/\n");
  const std::string root = "/sys/fs/cgroup/memory";
  machine.v1(root, 0, 9000, 0);
  machine.v1(root + "/app", 0, 9000, 0);
  machine.v1(root + "/app/one", 1000, 990, 800);
  machine.expect(1000, 810);
  // A limit above that this mount does not show.
  machine.v1(root + "/app/one", 0, 400, 100, "hierarchical_memory_limit " + mb(700) + "\n");
  machine.expect(700, 400);
  // Without a hierarchy the group above does not bind this one.
  machine.v1(root + "/app/one", 1000, 400, 100);
  machine.v1(root + "/app", 500, 500, 0);
  machine.expect(500, 0);
  machine.write(root + "/app/memory.use_hierarchy", "0\n");
  machine.expect(1000, 700);
}

// The parent's limit is larger, but others below it have used most of it.
TEST(memory_of_nested_groups_is_the_least_of_all) {
  Machine machine;
  machine.write("/proc/self/mountinfo", kV2Mount);
  machine.write("/proc/self/cgroup", "0::/user.slice/app.service/worker\n");
  machine.v2("/sys/fs/cgroup/user.slice", 4000, 3900, 200);
  machine.v2("/sys/fs/cgroup/user.slice/app.service", 0, 100, 50);
  machine.v2("/sys/fs/cgroup/user.slice/app.service/worker", 1000, 100, 50);
  machine.expect(1000, 300);
}

// CPU quotas are looked for where memory limits are: nested, mounted anywhere, in either version.
TEST(cpu_quota_of_groups) {
  Machine machine;
  machine.write("/proc/self/mountinfo",
                "36 25 0:31 / /run/groups rw - cgroup2 cgroup2 rw\n"
                "37 25 0:32 /docker/abc /cpus rw - cgroup cgroup rw,cpu,cpuacct\n");
  machine.write("/proc/self/cgroup", "0::/a/b\n");
  EXPECT_EQ(machine.cpus(), 0.0);
  machine.write("/run/groups/a/b/cpu.max", "max 100000\n");
  EXPECT_EQ(machine.cpus(), 0.0);
  machine.write("/run/groups/a/cpu.max", "250000 100000\n");
  EXPECT_EQ(machine.cpus(), 2.5);
  machine.write("/run/groups/a/b/cpu.max", "150000 100000\n");
  EXPECT_EQ(machine.cpus(), 1.5);
  machine.write("/run/groups/a/b/cpu.max", "many 0\n");  // not a number: no limit
  EXPECT_EQ(machine.cpus(), 2.5);
  machine.write("/proc/self/cgroup", "7:cpuset:/x\n4:cpu,cpuacct:/docker/abc/in\n");
  machine.write("/cpus/in/cpu.cfs_quota_us", "-1\n");
  machine.write("/cpus/in/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(machine.cpus(), 0.0);
  machine.write("/cpus/cpu.cfs_quota_us", "50000\n");
  machine.write("/cpus/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(machine.cpus(), 0.5);
}

// Docker without a cgroup namespace: the path on the host, the group mounted as the root.
TEST(memory_of_a_container_that_sees_its_group_as_the_root) {
  Machine machine;
  machine.write("/proc/self/mountinfo",
                "700 690 0:30 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
  machine.write("/proc/self/cgroup", "4:cpu,memory:/docker/abc/inner\n");
  machine.v1("/sys/fs/cgroup/memory", 1000, 900, 500);
  machine.v1("/sys/fs/cgroup/memory/inner", 800, 100, 0);
  machine.expect(800, 600);
  machine.write("/proc/self/cgroup", "4:memory:/docker/abcdef\n");  // outside: the root is known
  machine.expect(1000, 600);
  machine.write("/proc/self/cgroup", "4:memory:/../other\n");
  machine.expect(1000, 600);
  machine.write("/proc/self/cgroup", "3:memory_pressure:/docker/abc\n");  // another controller
  machine.expect(16000, 12000);
}

TEST(memory_mounts_may_lie_anywhere) {
  Machine machine;
  machine.write("/proc/self/mountinfo",
                "36 25 0:31 / /run/my\\040groups rw - cgroup2 cgroup2 rw\n");
  machine.write("/proc/self/cgroup", "0::/a\n");
  machine.v2("/run/my groups/a", 1000, 600, 100);
  machine.expect(1000, 500);
  machine.write("/proc/self/mountinfo", "");  // no mountinfo: the usual places
  machine.v2("/sys/fs/cgroup/a", 2000, 600, 100);
  machine.expect(2000, 1500);
}

TEST(memory_limits_of_the_process_count) {
  Machine machine;
  const std::string head = "Limit                     Soft Limit     Hard Limit     Units\n";
  machine.write("/proc/self/status", "Name:\tnode\nVmSize:\t 1024000 kB\nVmData:\t 512000 kB\n");
  machine.write("/proc/self/limits",
                head + "Max data size             unlimited      unlimited      bytes\n"
                       "Max address space         " + mb(3000) + "           unlimited   bytes\n");
  machine.expect(16000, 2000);
  machine.write("/proc/self/limits",
                head + "Max data size             " + mb(600) + "      unlimited      bytes\n"
                       "Max address space         " + mb(3000) + "           unlimited   bytes\n");
  machine.expect(16000, 100);
  machine.write("/proc/self/limits",
                head + "Max data size             1              1              bytes\n");
  machine.expect(16000, 0);
}

TEST(memory_may_not_be_committed_twice) {
  Machine machine;
  machine.write("/proc/meminfo", "MemTotal: 16384000 kB\nMemAvailable: 12288000 kB\n"
                                 "CommitLimit: 8192000 kB\nCommitted_AS: 7168000 kB\n");
  machine.write("/proc/sys/vm/overcommit_memory", "0\n");
  machine.expect(16000, 12000);
  machine.write("/proc/sys/vm/overcommit_memory", "2\n");
  machine.expect(16000, 1000);
}

}  // namespace
}  // namespace polylm::test
