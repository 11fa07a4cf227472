/* Leaves processes behind, as many as it is told: detached, deaf to every signal that can be ignored. */
#include "try.h"

int main(int argc, char **argv) {
  for (int i = atoi(argv[1]); i > 0; i--) {
    pid_t child = fork();
    if (child < 0) return 1;
    if (child > 0) continue;
    setsid();
    for (int signal_number = 1; signal_number < 65; signal_number++) signal(signal_number, SIG_IGN);
    if (fork() > 0) _exit(0);
    close(1), close(2);
    for (;;) pause();
  }
  return 0;
}
