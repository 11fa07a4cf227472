/* Goes for other processes: the worker by its number, and process 1, which is not the command's own. */
#include "try.h"
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/uio.h>

static long peek(pid_t pid) {
  char bytes[8];
  struct iovec here = {bytes, 8}, there = {(void *)0x400000, 8};
  return process_vm_readv(pid, &here, 1, &there, 1, 0);
}

static long opened(const char *format, pid_t pid) {
  char path[64];
  sprintf(path, format, pid);
  return open(path, O_RDONLY);
}

/* Whoever ends process 1 ends with it, and then lines are missing. The kernel takes the signal and drops it. */
static long killed_first(pid_t first) {
  if (kill(first, SIGKILL) == 0) {
    usleep(100000);
    errno = EBUSY;
  }
  return -1;
}

int main(int argc, char **argv) {
  pid_t worker = atoi(argv[1]), first = getppid();
  struct rlimit none = {0, 0};
  TRY("kill-worker", kill(worker, SIGKILL));
  TRY("trace-worker", ptrace(PTRACE_ATTACH, worker, 0, 0));
  TRY("read-worker", peek(worker));
  TRY("memory-of-worker", opened("/proc/%d/mem", worker));
  TRY("environment-of-worker", opened("/proc/%d/environ", worker));
  TRY("limit-worker", prlimit(worker, RLIMIT_NOFILE, &none, NULL));
  TRY("kill-first", killed_first(first == 0 ? 1 : first));
  TRY("trace-first", ptrace(PTRACE_ATTACH, first, 0, 0));
  TRY("read-first", peek(first));
  TRY("memory-of-first", opened("/proc/%d/mem", first));
  TRY("environment-of-first", opened("/proc/%d/environ", first));
  TRY("files-of-first", opened("/proc/%d/fd/3", first));
  TRY("root-of-first", opened("/proc/%d/root/.", first));
}
