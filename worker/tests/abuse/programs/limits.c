/* Changes what is the machine's, or what bounds the action. */
#include "try.h"
#include <grp.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <time.h>

static int raise_limit(int which) {
  struct rlimit limit;
  getrlimit(which, &limit);
  limit.rlim_cur = ++limit.rlim_max;
  return limit.rlim_max == 0 ? -1 : setrlimit(which, &limit);
}

static int adjust(const char *score) {
  int file = open("/proc/self/oom_score_adj", O_WRONLY);
  return file < 0 ? -1 : write(file, score, strlen(score));
}

int main(void) {
  struct timespec then = {0, 0};
  struct timeval when = {0, 0};
  struct timex adjustment = {.modes = ADJ_OFFSET};
  struct sched_param realtime = {.sched_priority = 1};
  TRY("clock_settime", clock_settime(CLOCK_REALTIME, &then));
  TRY("settimeofday", settimeofday(&when, NULL));
  TRY("adjtimex", adjtimex(&adjustment));
  TRY("sethostname", sethostname("x", 1));
  TRY("files", raise_limit(RLIMIT_NOFILE));
  TRY("processes", raise_limit(RLIMIT_NPROC));
  TRY("file-size", raise_limit(RLIMIT_FSIZE));
  TRY("core", raise_limit(RLIMIT_CORE));
  TRY("nice", setpriority(PRIO_PROCESS, 0, -10));
  TRY("realtime", sched_setscheduler(0, SCHED_FIFO, &realtime));
  TRY("oom", adjust("-1000"));
  TRY("setuid", setuid(0));
  TRY("setgid", setgid(0));
  TRY("setgroups", setgroups(0, NULL));
}
