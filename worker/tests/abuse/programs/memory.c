/* Takes as many MiB as it is told, for good: of its own, behind a closed door, shared, or amid much coming and going. */
#include "try.h"
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static void *take(char how) {
  if (how != 's') return malloc(1 << 20);
  return mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

/* Processes that end all the time, and that process 1 has to reap. */
static void come_and_go(void) {
  if (fork() > 0) return;
  for (;;) {
    if (fork() == 0) {
      fork();
      _exit(0);
    }
    wait(NULL);
    usleep(5000);
  }
}

int main(int argc, char **argv) {
  char how = argc > 2 ? argv[2][0] : 0;
  if (how == 'h') prctl(PR_SET_DUMPABLE, 0);
  if (how == 'o') come_and_go();
  for (long i = atol(argv[1]); i > 0; i--) memset(take(how), 1, 1 << 20);
  while (how) pause();
  puts("DONE");
}
