/* Fills a folder with bytes, or with names, until it is refused or has as many as it was told. */
#include "try.h"

int main(int argc, char **argv) {
  static char bytes[1 << 20];
  long most = atol(argv[3]), done = 0;
  char path[256];
  sprintf(path, "%s/fill", argv[2]);
  int file = open(path, O_CREAT | O_WRONLY, 0600);
  memset(bytes, 1, sizeof bytes);
  while (done < most) {
    if (argv[1][0] == 'b') {
      if (write(file, bytes, sizeof bytes) < 0) break;
    } else {
      sprintf(path, "%s/%ld", argv[2], done);
      int made = open(path, O_CREAT | O_WRONLY, 0600);
      if (made < 0) break;
      close(made);
    }
    done++;
  }
  printf("%s %s\n", argv[2], done < most ? strerrorname_np(errno) : "DONE");
}
