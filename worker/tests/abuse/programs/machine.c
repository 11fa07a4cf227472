/* Opens what the kernel shows and takes by files. */
#include "try.h"

/* Writes a text to a file that each process has of its own; to open it is no harm yet. */
static long put(const char *path, const char *text) {
  int file = open(path, O_WRONLY);
  return file == -1 ? -1 : write(file, text, strlen(text));
}

int main(void) {
  TRY("kcore", open("/proc/kcore", O_RDONLY));
  TRY("kallsyms", open("/proc/kallsyms", O_RDONLY));
  TRY("kmsg", open("/proc/kmsg", O_RDONLY));
  TRY("sysrq", open("/proc/sysrq-trigger", O_WRONLY));
  TRY("core_pattern", open("/proc/sys/kernel/core_pattern", O_WRONLY));
  TRY("hostname", open("/proc/sys/kernel/hostname", O_WRONLY));
  TRY("max_user_namespaces", open("/proc/sys/user/max_user_namespaces", O_WRONLY));
  TRY("ip_forward", open("/proc/sys/net/ipv4/ip_forward", O_WRONLY));
  TRY("oom_score_adj", put("/proc/self/oom_score_adj", "-1000"));
  TRY("uid_map", put("/proc/self/uid_map", "0 0 1"));
  TRY("sysfs", open("/sys/kernel", O_RDONLY));
  TRY("cgroups", open("/sys/fs/cgroup", O_RDONLY));
  TRY("debug", open("/sys/kernel/debug", O_RDONLY));
  TRY("mem", open("/dev/mem", O_RDWR));
  TRY("dev-kmsg", open("/dev/kmsg", O_RDWR));
  TRY("disk", open("/dev/sda", O_RDONLY));
  TRY("disk-vda", open("/dev/vda", O_RDONLY));
  TRY("fuse", open("/dev/fuse", O_RDWR));
  TRY("kvm", open("/dev/kvm", O_RDWR));
  TRY("tun", open("/dev/net/tun", O_RDWR));
  TRY("mknod", mknod("disk", S_IFBLK | 0600, 0x800));
  TRY("mknod-char", mknod("mem", S_IFCHR | 0600, 0x101));
}
