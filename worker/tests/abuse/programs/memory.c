/* Takes as many MiB as it is told, for good. */
#include "try.h"

int main(int argc, char **argv) {
  for (long i = atol(argv[1]); i > 0; i--) memset(malloc(1 << 20), 1, 1 << 20);
  puts("DONE");
}
