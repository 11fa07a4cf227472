/* Fills a folder with bytes, or with names, until it is refused or has as many as it was told. Or takes as many MiB in
   files that have no names, open or mapped, and keeps them. */
#include "try.h"
#include <sys/mman.h>

#define MIB (1L << 20)

static int file_in(const char *folder, long number) {
  char path[256];
  sprintf(path, "%s/%ld", folder, number);
  return open(path, O_CREAT | O_RDWR, 0600);
}

static void keep(int is_mapped, const char *folder, long most) {
  static char bytes[20 * MIB], path[256];
  for (long i = 0; i < most; i += 20) {
    int file = file_in(folder, i);
    sprintf(path, "%s/%ld", folder, i);
    unlink(path);
    if (!is_mapped) {
      write(file, bytes, sizeof bytes);
      continue;
    }
    ftruncate(file, sizeof bytes);
    memset(mmap(NULL, sizeof bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0), 1, sizeof bytes);
    close(file);
  }
  for (;;) pause();
}

int main(int argc, char **argv) {
  static char bytes[MIB];
  long most = atol(argv[3]), done = 0;
  if (strchr("um", argv[1][0])) keep(argv[1][0] == 'm', argv[2], most);
  char path[256];
  sprintf(path, "%s/fill", argv[2]);
  int file = open(path, O_CREAT | O_WRONLY, 0600);
  memset(bytes, 1, sizeof bytes);
  while (done < most) {
    if (argv[1][0] == 'b') {
      if (write(file, bytes, sizeof bytes) < 0) break;
    } else {
      int made = file_in(argv[2], done);
      if (made < 0) break;
      close(made);
    }
    done++;
  }
  printf("%s %s\n", argv[2], done < most ? strerrorname_np(errno) : "DONE");
}
