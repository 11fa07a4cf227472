/* Makes processes until there is an end to it, each of which does the same. */
#include "try.h"

int main(void) {
  for (;;)
    if (fork() < 0) write(1, "e", 1);
}
