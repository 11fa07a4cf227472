/* What the hostile programs of these tests share: each attempt prints a line, its name and DONE or an errno. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define TRY(name, call)                                                              \
  do {                                                                               \
    errno = 0;                                                                       \
    long done = (long)(call);                                                        \
    printf("%s %s\n", name, done == -1 ? strerrorname_np(errno) : "DONE");           \
    fflush(stdout);                                                                  \
  } while (0)

/* For calls that the C library has no function for; numbers since 424 are the same everywhere. */
#define CALL(number, ...) syscall(number, ##__VA_ARGS__)
