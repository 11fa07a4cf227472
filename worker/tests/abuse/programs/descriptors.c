/* Looks for descriptors beyond stdin, stdout and stderr, and for what stdin is. */
#include "try.h"

int main(void) {
  for (int fd = 3; fd < 4096; fd++) {
    char path[32], target[256];
    if (fcntl(fd, F_GETFD) < 0) continue;
    sprintf(path, "/proc/self/fd/%d", fd);
    long size = readlink(path, target, sizeof target - 1);
    printf("%d %.*s DONE\n", fd, (int)(size < 0 ? 0 : size), target);
  }
  struct stat stdin_is;
  fstat(0, &stdin_is);
  printf("stdin %s\n", S_ISCHR(stdin_is.st_mode) ? "null" : "DONE");
}
